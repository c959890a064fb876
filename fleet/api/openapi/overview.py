"""The OpenAPI description of `/sessions`, `/targets` and `/history`."""

from fleet.api.openapi.parts import FLAG, Json, json_answer, parameter, problems, ref
from fleet.api.openapi.parts import object_schema as _object
from fleet.api.routes.overview import SPAN_DEFAULT
from fleet.ledger.sessions import SESSIONS_MAX
from fleet.ledger.sums import SPANS
from routing.event import NAME_CHARS_MAX

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NUMBER: Json = {"type": "number", "minimum": 0}
_TIME: Json = {"type": "string", "format": "date-time"}
_NAME: Json = {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX}
_TEXTS: Json = {"type": "array", "items": _TEXT}


def _or_null(schema: Json) -> Json:
    return {"oneOf": [schema, {"type": "null"}]}


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
        "span from bucket_s places whole buckets",
        span={"type": "string", "enum": list(SPANS)},
        bucket_s=_COUNT,
        places=_COUNT,
        whole={
            "description": "False when the agent has more dispatches than were read.",
            "type": "boolean",
        },
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
    limit: Json = {"type": "integer", "minimum": 1, "maximum": SESSIONS_MAX, "default": 50}
    return _get(
        "find_sessions",
        "The conversations of late, last active first.",
        _object(
            "sessions cursor",
            sessions={"type": "array", "items": ref("Session")},
            cursor=_or_null(_TEXT),
        ),
        parameter("agent", _NAME, "Only what this agent took part in."),
        parameter("limit", limit, "At most so many."),
        parameter(
            "cursor",
            _TEXT,
            "The `cursor` of the page before. A page counts what it has read: a session can be on "
            "several pages.",
        ),
        parameter("content", FLAG, "With the first line of the newest event."),
    )


_SPAN: Json = {"type": "string", "enum": list(SPANS), "default": SPAN_DEFAULT}

OVERVIEW_PATHS: Json = {
    "/sessions": {"get": _sessions()},
    "/targets": {
        "get": _get("targets", "Where events can be sent to, lanes and chains.", ref("Targets"))
    },
    "/history": {
        "get": _get(
            "history",
            "Sums over time, of the whole fleet or of one agent.",
            ref("History"),
            parameter("span", _SPAN, "How far back."),
            parameter(
                "agent",
                _NAME,
                "Only this agent's kept dispatches that have ended, by when they ended.",
            ),
        )
    },
}
