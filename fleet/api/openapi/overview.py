"""The OpenAPI description of `/sessions`, `/targets`, `/history` and `/tokens`."""

from fleet.api.openapi.parts import FLAG, Json, json_answer, parameter, problems, ref
from fleet.api.openapi.parts import object_schema as _object
from fleet.api.routes.overview import SPAN_DEFAULT
from fleet.api.routes.tokens import RATE_MAX
from fleet.auth.tokens import NAME_CHARS_MAX as TOKEN_NAME_CHARS_MAX
from fleet.ledger.sessions import SESSIONS_MAX
from fleet.ledger.sums import SPANS
from routing.event import EVENT_BYTES_MAX, NAME_CHARS_MAX

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NUMBER: Json = {"type": "number", "minimum": 0}
_TIME: Json = {"type": "string", "format": "date-time"}
_TEXTS: Json = {"type": "array", "items": _TEXT}


def _or_null(schema: Json) -> Json:
    return {"oneOf": [schema, {"type": "null"}]}


_TOKEN: Json = {
    "id": _TEXT,
    "name": _TEXT,
    "scopes": _TEXTS,
    "created_ms": _COUNT,
    "revoked_ms": _or_null(_COUNT),
    "rate_per_s": _or_null(_NUMBER),
    "body_bytes": _or_null(_COUNT),
}

OVERVIEW_SCHEMAS: Json = {
    "Session": _object(
        "session agents dispatches states newest_at newest_id oldest_at tokens usd",
        session=_TEXT,
        agents=_TEXTS,
        dispatches=_COUNT,
        states={"type": "object", "additionalProperties": _COUNT},
        newest_at=_TIME,
        newest_id=_TEXT,
        oldest_at=_TIME,
        tokens=_COUNT,
        usd=_NUMBER,
        text={"description": "The first line of its newest event.", **_TEXT},
    ),
    "Targets": _object(
        "targets lanes chains",
        targets={
            "type": "array",
            "items": _object(
                "target kind",
                target=_TEXT,
                kind={"type": "string", "enum": ["agent", "group", "all", "chain"]},
            ),
        },
        lanes={"type": "object", "additionalProperties": _COUNT},
        chains={"type": "array", "items": ref("ChainPlan")},
    ),
    "ChainPlan": _object(
        "name on_failure on_silence max_revisions stages",
        name=_TEXT,
        on_failure=_TEXT,
        on_silence=_TEXT,
        max_revisions=_COUNT,
        stages={
            "type": "array",
            "items": _object(
                "name person members quorum deadline_s",
                name=_TEXT,
                person=_or_null(_TEXT),
                members=_TEXTS,
                quorum=_COUNT,
                deadline_s=_or_null(_NUMBER),
            ),
        },
    ),
    "History": _object(
        "span from bucket_s places buckets",
        span={"type": "string", "enum": list(SPANS)},
        bucket_s=_COUNT,
        places=_COUNT,
        buckets={
            "description": "Those in which anything happened; `place` counts from the oldest.",
            "type": "array",
            "items": _object(
                "place completed ended_badly cancelled failed turns tokens_in tokens_out usd",
                place=_COUNT,
                completed=_COUNT,
                ended_badly=_COUNT,
                cancelled=_COUNT,
                failed=_COUNT,
                turns=_COUNT,
                turn_p50_s=_or_null(_NUMBER),
                turn_p95_s=_or_null(_NUMBER),
                tokens_in=_COUNT,
                tokens_out=_COUNT,
                usd=_NUMBER,
            ),
        },
    ),
    "Token": _object("id name scopes created_ms revoked_ms", **_TOKEN),
    "NewToken": _object(
        "id name scopes created_ms token",
        **_TOKEN,
        token={"description": "Its text, this once.", **_TEXT},
    ),
    "RevokedTokens": _object(
        "revoked",
        revoked={"type": "array", "items": _object("id name", id=_TEXT, name=_TEXT)},
    ),
    "AgentOptions": _object(
        "agent options",
        agent=_TEXT,
        options={"description": "As configured; secrets are `***`.", "type": "object"},
    ),
}
OVERVIEW_SCHEMAS["History"]["properties"]["from"] = _TIME


def _get(name: str, summary: str, answer: Json, *parameters: Json) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": list(parameters),
        "responses": {
            "200": json_answer("Found.", answer),
            **problems(400, 401, 403, 429, 503),
        },
    }


def _sessions() -> Json:
    name: Json = {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX}
    limit: Json = {"type": "integer", "minimum": 1, "maximum": SESSIONS_MAX, "default": 50}
    return _get(
        "find_sessions",
        "The conversations of late, last active first.",
        _object("sessions", sessions={"type": "array", "items": ref("Session")}),
        parameter("agent", name, "Only what this agent took part in."),
        parameter("limit", limit, "At most so many."),
        parameter("content", FLAG, "With the first line of the newest event."),
    )


def _create_token() -> Json:
    rate: Json = {"type": "number", "exclusiveMinimum": 0, "maximum": RATE_MAX}
    limit: Json = {"type": "integer", "minimum": 1, "maximum": EVENT_BYTES_MAX}
    body = _object(
        "name scopes",
        closed=True,
        name={"type": "string", "minLength": 1, "maxLength": TOKEN_NAME_CHARS_MAX},
        scopes={"type": "array", "minItems": 1, "items": _TEXT},
        rate_per_s=_or_null(rate),
        body_bytes=_or_null(limit),
    )
    return {
        "operationId": "create_token",
        "summary": "Create a token. From the first on, every request needs one. Scope: admin.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "201": json_answer("The token with its text, this once.", ref("NewToken")),
            **problems(400, 401, 403, 408, 413, 415, 429, 503),
        },
    }


def _revoke_token() -> Json:
    name = {"name": "which", "in": "path", "required": True}
    return {
        "operationId": "revoke_token",
        "summary": "Revoke the token of this id, or all of this name. Scope: admin.",
        "parameters": [{**name, "schema": {"type": "string", "minLength": 1}}],
        "responses": {
            "200": json_answer("Those revoked now.", ref("RevokedTokens")),
            **problems(400, 401, 403, 404, 429, 503),
        },
    }


_SPAN: Json = {"type": "string", "enum": list(SPANS), "default": SPAN_DEFAULT}

OVERVIEW_PATHS: Json = {
    "/sessions": {"get": _sessions()},
    "/targets": {
        "get": _get("targets", "Where events can be sent to, lanes and chains.", ref("Targets"))
    },
    "/history": {
        "get": _get(
            "history",
            "Sums over time, of the whole fleet.",
            ref("History"),
            parameter("span", _SPAN, "How far back."),
        )
    },
    "/tokens": {
        "get": _get(
            "find_tokens",
            "Every token, newest first, without its secret. Scope: admin.",
            _object("tokens", tokens={"type": "array", "items": ref("Token")}),
        ),
        "post": _create_token(),
    },
    "/tokens/{which}": {"delete": _revoke_token()},
}
