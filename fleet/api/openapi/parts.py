"""Builders for the parts of the OpenAPI document."""

from typing import Any

from fleet.api.request.problems import MEDIA_TYPE
from fleet.api.routes.events import BATCH_MAX
from routing.event import EVENT_BYTES_MAX

Json = dict[str, Any]

_PROBLEMS = {
    400: "Malformed; the problem names what is wrong.",
    401: "No good token or signature, where one is needed.",
    403: "Another site's page, a public host name, or a scope that the token does not have.",
    404: "Not known here.",
    405: "Not for this method.",
    406: "The client takes no JSON.",
    408: "The body did not arrive in time.",
    409: "The dispatch is in a state that does not allow it, the session is busy, or several ids "
    "begin so.",
    413: f"Larger than {EVENT_BYTES_MAX} bytes or an agent's answer, or over {BATCH_MAX} events.",
    415: "Not JSON, or compressed.",
    422: "The body has no answer; nothing was kept.",
    429: "A limit refuses it; the sender keeps it. See `Retry-After`.",
    503: "Nothing can accept or answer it now. See `Retry-After`.",
}

#: The parameter that names a dispatch.
DISPATCH_ID: Json = {
    "name": "dispatch_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "description": "Its id, or the beginning of it: 6 characters or more.",
}


#: A parameter that is on or off.
FLAG: Json = {"type": "string", "enum": ["0", "1", "false", "true"], "default": "0"}


def object_schema(required: str = "", *, closed: bool = False, **properties: Json) -> Json:
    """The schema of an object; `required` names its required properties."""
    schema: Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required.split()
    if closed:
        schema["additionalProperties"] = False
    return schema


def parameter(name: str, schema: Json, description: str, place: str = "query") -> Json:
    """An optional parameter."""
    return {"name": name, "in": place, "schema": schema, "description": description}


def json_answer(description: str, schema: Json) -> Json:
    """An answer with a JSON body."""
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def problems(*statuses: int) -> Json:
    """The refusals of an operation; each is a problem document."""
    content = {MEDIA_TYPE: {"schema": ref("Problem")}}
    return {str(code): {"description": _PROBLEMS[code], "content": content} for code in statuses}


def ref(name: str) -> Json:
    """A reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}
