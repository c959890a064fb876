"""The OpenAPI description of `/tokens`."""

from fleet.api.openapi.parts import Json, json_answer, problems
from fleet.auth.tokens import NAME_CHARS_MAX
from routing.event import EVENT_BYTES_MAX

_TEXT: Json = {"type": "string"}
_SCOPES: Json = {"type": "array", "items": _TEXT, "minItems": 1}
_LIMITS: Json = {
    "rate_per_s": {"oneOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]},
    "body_bytes": {
        "oneOf": [
            {"type": "integer", "minimum": 1, "maximum": EVENT_BYTES_MAX},
            {"type": "null"},
        ]
    },
}
_MILLIS: Json = {"type": "integer", "minimum": 0}
_TOKEN: Json = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "name": _TEXT,
        "scopes": {"type": "array", "items": _TEXT},
        "created_ms": _MILLIS,
        "revoked_ms": {"oneOf": [_MILLIS, {"type": "null"}]},
        **_LIMITS,
    },
    "required": ["id", "name", "scopes", "created_ms", "revoked_ms"],
}


def _find() -> Json:
    table: Json = {
        "type": "object",
        "properties": {"tokens": {"type": "array", "items": _TOKEN}},
        "required": ["tokens"],
    }
    return {
        "operationId": "find_tokens",
        "summary": "Every token, newest first, without its secret; for the scope `admin`.",
        "responses": {
            "200": json_answer("The tokens.", table),
            **problems(400, 401, 403, 429, 503),
        },
    }


def _create() -> Json:
    wanted: Json = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX},
            "scopes": _SCOPES,
            **_LIMITS,
        },
        "required": ["name", "scopes"],
    }
    text: Json = {"description": "Shown this once.", **_TEXT}
    made: Json = {
        **_TOKEN,
        "properties": {**_TOKEN["properties"], "token": text},
        "required": [*_TOKEN["required"], "token"],
    }
    return {
        "operationId": "create_token",
        "summary": "Make a token; for the scope `admin`.",
        "description": "The first token is made on the fleet's machine: `fleet token create`.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": wanted}}},
        "responses": {
            "201": json_answer("The token, with its text.", made),
            **problems(400, 401, 403, 408, 413, 415, 429, 503),
        },
    }


def _revoke() -> Json:
    name: Json = {"type": "string", "minLength": 1}
    revoked: Json = {
        "type": "object",
        "properties": {
            "revoked": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"id": _TEXT, "name": _TEXT},
                    "required": ["id", "name"],
                },
            }
        },
        "required": ["revoked"],
    }
    return {
        "operationId": "revoke_token",
        "summary": "Revoke the token of this id, or all of this name; for the scope `admin`.",
        "parameters": [{"name": "which", "in": "path", "required": True, "schema": name}],
        "responses": {
            "200": json_answer("Those that were not revoked before.", revoked),
            **problems(400, 401, 403, 404, 429, 503),
        },
    }


TOKEN_PATHS: Json = {
    "/tokens": {"get": _find(), "post": _create()},
    "/tokens/{which}": {"delete": _revoke()},
}
