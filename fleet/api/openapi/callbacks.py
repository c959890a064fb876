"""The OpenAPI description of `/callbacks`."""

from fleet.api.openapi.parts import DISPATCH_ID, Json, json_answer, parameter, problems, ref


def _call_back() -> Json:
    text: Json = {"type": "string"}
    answer: Json = {
        "anyOf": [
            {"type": "object", "properties": {"text": text}, "required": ["text"]},
            {
                "type": "object",
                "properties": {"error": text, "retryable": {"type": "boolean", "default": False}},
                "required": ["error"],
            },
            text,
        ]
    }
    return {
        "operationId": "call_back",
        "summary": "The answer of a service that replied 202 to an event with a `fleetcallback`.",
        "description": "Signed with the agent's secret, after Standard Webhooks; the `webhook-id` "
        "is `callback-` and the dispatch's id. A JSON object's `text` is the answer, its `error` a "
        "failure; a JSON string is the answer as it is, and so is the body as `text/plain`. A body "
        "with neither is refused, and the turn waits on. The first one counts.",
        "parameters": [
            DISPATCH_ID,
            *(
                {**parameter(name, text, requirement, place="header"), "required": True}
                for name, requirement in _SIGNATURE.items()
            ),
        ],
        # Without `text/plain`: generators of clients know no such body, and leave the call out.
        "requestBody": {"required": True, "content": {"application/json": {"schema": answer}}},
        "responses": {
            "202": json_answer("Kept for the turn that waits, or was before.", ref("CalledBack")),
            **problems(400, 404, 408, 409, 413, 415, 422, 503),
        },
        "security": [],
    }


_SIGNATURE = {
    "webhook-id": "`callback-` and the dispatch's id.",
    "webhook-timestamp": "Seconds since 1970, at most five minutes off.",
    "webhook-signature": "`v1,` and the signature; several may be given.",
}

CALLBACK_PATHS: Json = {"/callbacks/{dispatch_id}": {"post": _call_back()}}
