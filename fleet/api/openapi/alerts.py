"""The OpenAPI description of `/alerts`."""

from fleet.api.openapi.parts import Json, json_answer, parameter, problems, ref
from fleet.ledger.operations import BY_CHARS_MAX
from fleet.ops.alerts.silences import COMMENT_CHARS_MAX, SILENCE_S_MAX

_TEXT: Json = {"type": "string"}
_TIME: Json = {"type": "string", "format": "date-time"}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_BY: Json = {
    "type": "string",
    "minLength": 1,
    "maxLength": BY_CHARS_MAX,
    "description": "Who says so; with a token it is the token's name.",
}
_COMMENT: Json = {"type": "string", "maxLength": COMMENT_CHARS_MAX}


def _object(properties: Json, *optional: str) -> Json:
    required = [name for name in properties if name not in optional]
    schema: Json = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def _ref_or_null(name: str) -> Json:
    return {"oneOf": [ref(name), {"type": "null"}]}


_KEPT: Json = {
    "id": {**_TEXT, "description": "Of one opening: the same condition opens under another."},
    "name": {**_TEXT, "description": "The kind of alert."},
    "agent": {**_TEXT_OR_NULL, "description": "Null where the alert is of no agent."},
    "reason": {**_TEXT, "description": "What is wrong, and the remedy."},
    "since": {**_TIME, "description": "When it opened."},
    "host": {**_TEXT_OR_NULL, "description": "The machine, of an alert of one machine."},
}

ALERT_SCHEMAS: Json = {
    "Alerts": _object(
        {
            "open": {"type": "array", "items": ref("Alert")},
            "silences": {"type": "array", "items": ref("Silence")},
            "past": {
                "type": "array",
                "items": ref("PastAlert"),
                "description": "With `all`: those that are over, the newest first.",
            },
        },
        "past",
    ),
    "Alert": _object(
        {
            **_KEPT,
            "state": {"type": "string", "enum": ["open"]},
            "acknowledged": _ref_or_null("Acknowledgement"),
            "silenced": _ref_or_null("Silence"),
        }
    ),
    "PastAlert": _object(
        {
            **_KEPT,
            "state": {
                "type": "string",
                "enum": ["resolved", "notice"],
                "description": "A `notice` is of a moment, and was never open.",
            },
            "ended_at": {"type": ["string", "null"], "format": "date-time"},
            "acknowledged": _ref_or_null("Acknowledgement"),
            "dispatch_id": _TEXT_OR_NULL,
        }
    ),
    "Acknowledgement": _object({"by": _TEXT, "comment": _TEXT, "at": _TIME}),
    "Silence": _object(
        {
            "id": {
                **_TEXT_OR_NULL,
                "description": "The alert; null where every alert of the name is silenced.",
            },
            "name": _TEXT,
            "agent": _TEXT_OR_NULL,
            "by": _TEXT,
            "comment": _TEXT,
            "since": _TIME,
            "until": _TIME,
        }
    ),
    "AlertMarked": _object(
        {
            "id": _TEXT_OR_NULL,
            "name": _TEXT,
            "state": {"type": "string", "enum": ["silenced", "unsilenced", "acknowledged"]},
            "by": {**_TEXT_OR_NULL, "description": "Who is named; null where nobody is."},
        }
    ),
}


def _find() -> Json:
    choice: Json = {"type": "string", "enum": ["0", "1", "false", "true"], "default": "0"}
    return {
        "operationId": "find_alerts",
        "summary": "The open alerts, and the silences.",
        "parameters": [parameter("all", choice, "Those that are over, too.")],
        "responses": {
            "200": json_answer("The alerts that the caller may see.", ref("Alerts")),
            **problems(400, 401, 403, 429, 503),
        },
    }


def _mark(operation_id: str, summary: str, which: str, properties: Json) -> Json:
    place: Json = {
        "name": "alert",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
        "description": which,
    }
    operation: Json = {
        "operationId": operation_id,
        "summary": summary,
        "parameters": [place],
        "responses": {
            "200": json_answer("Done.", ref("AlertMarked")),
            **problems(400, 401, 403, 404, 408, 409, 413, 415, 429, 503),
        },
    }
    if properties:
        schema = _object(properties, "by", "comment")
        needed = "required" in schema
        body = {"required": needed, "content": {"application/json": {"schema": schema}}}
        operation["requestBody"] = body
    return operation


_ID = "Its id, or six or more characters that only its id begins with."
_ID_OR_NAME = f"{_ID} Or a name: every alert of that kind."

ALERT_PATHS: Json = {
    "/alerts": {"get": _find()},
    "/alerts/{alert}/silence": {
        "post": _mark(
            "silence_alert",
            "Send an alert to nobody for a while; it stays in the list and on the bus.",
            _ID_OR_NAME,
            {
                "for_s": {"type": "number", "minimum": 1, "maximum": SILENCE_S_MAX},
                "by": _BY,
                "comment": _COMMENT,
            },
        )
    },
    "/alerts/{alert}/unsilence": {
        "post": _mark(
            "unsilence_alert", "End a silence: what is still open is sent then.", _ID_OR_NAME, {}
        )
    },
    "/alerts/{alert}/ack": {
        "post": _mark(
            "acknowledge_alert",
            "Say that somebody knows of an open alert: it is not sent again while it grows.",
            _ID,
            {"by": _BY, "comment": _COMMENT},
        )
    },
}
