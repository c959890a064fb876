"""The OpenAPI description of what runs work again: resend, and the replay of dead letters."""

from fleet.api.openapi.parts import DISPATCH_ID, Json, json_answer, parameter, problems, ref
from fleet.api.openapi.schemas import SCHEMAS
from fleet.intake.resend import CHANGEABLE
from fleet.ledger.dead_letters import BATCH_DEFAULT, BATCH_MAX

_TEXT: Json = {"type": "string"}
_SHORTHAND: Json = SCHEMAS["Shorthand"]["properties"]
_ACCEPTED: Json = SCHEMAS["Accepted"]


def _body(**fields: Json) -> Json:
    schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return {"content": {"application/json": {"schema": schema}}}


_RESEND: Json = {
    "operationId": "resend_dispatch",
    "summary": "Send the event of a dispatch again, as a new one with changes.",
    "description": "The old one stays as it is, in whatever state. A stage of a chain begins its "
    "chain anew, any other dispatch goes to its agent, unless `to` says otherwise. The rest is as "
    "in `POST /events`.",
    "parameters": [
        DISPATCH_ID,
        parameter(
            "Idempotency-Key",
            {"type": "string", "minLength": 1, "maxLength": 256},
            "The id of the new event: the same twice is one event.",
            place="header",
        ),
        parameter("traceparent", _TEXT, "The trace of the event.", place="header"),
    ],
    "requestBody": _body(**{name: _SHORTHAND[name] for name in (*CHANGEABLE, "id", "hops")}),
    "responses": {
        "202": json_answer("In the ledger: it will end.", ref("Resent")),
        **problems(400, 401, 403, 404, 408, 409, 413, 415, 429, 503),
    },
}
_REPLAY: Json = {
    "operationId": "replay_dead_letters",
    "summary": "Queue dead letters again, those that ended first, each in its old place.",
    "description": "Only what the caller may see. Where others of the filter may be left, `more` "
    "is true: request it again.",
    "requestBody": _body(
        agent={"description": "Only this agent's.", **_TEXT},
        since={"description": "The earliest end: RFC 3339, or 90s, 15m, 2h, 3d ago.", **_TEXT},
        reason={"description": "A part of their stage or reason.", **_TEXT},
        limit={
            "type": "integer",
            "minimum": 1,
            "maximum": BATCH_MAX,
            "default": BATCH_DEFAULT,
        },
    ),
    "responses": {
        "200": json_answer("What was done with each.", ref("Replayed")),
        **problems(400, 401, 403, 404, 408, 413, 415, 429, 503),
    },
}

AGAIN_SCHEMAS: Json = {
    "Resent": {
        "type": "object",
        "required": [*_ACCEPTED["required"], "resent_from"],
        "properties": {
            **_ACCEPTED["properties"],
            "resent_from": {"description": "The old dispatch's id.", **_TEXT},
        },
    },
    "Replayed": {
        "type": "object",
        "required": ["replayed", "refused", "more"],
        "properties": {
            "replayed": {"type": "array", "items": _TEXT},
            "refused": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["dispatch_id", "error"],
                    "properties": {"dispatch_id": _TEXT, "error": _TEXT},
                },
            },
            "more": {"type": "boolean"},
        },
    },
}
AGAIN_PATHS: Json = {
    "/dispatches/{dispatch_id}/resend": {"post": _RESEND},
    "/dead-letters/replay": {"post": _REPLAY},
}
