"""JSON Schemas of the API's requests and answers."""

from collections.abc import Iterable

from fleet.api.bus.cursor import Resync
from fleet.api.openapi.overview import OVERVIEW_SCHEMAS
from fleet.api.openapi.parts import Json
from fleet.api.openapi.parts import object_schema as _object
from fleet.api.openapi.parts import ref as _ref
from fleet.ledger import FailureStage, State, bus, bus_types
from routing import Verdict
from routing.event import HOPS_MAX, NAME_CHARS_MAX, PRIORITIES, PRIORITY_DEFAULT, TARGETS_MAX

_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "number", "minimum": 0}
_COUNT: Json = {"type": "integer", "minimum": 0}
_COUNTS: Json = {"type": "object", "additionalProperties": _COUNT}
_FLAG: Json = {"type": "boolean"}
_TIME: Json = {"type": "string", "format": "date-time"}
_NAME: Json = {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX}
_VERIFICATION: Json = {
    "type": "string",
    "enum": ["ack", "echo", "timeout_fallback"],
    "description": (
        "Whether a receiver confirmed the outcome (`ack`), or a terminal the event (`echo`); "
        "`timeout_fallback`: not in time."
    ),
}
_SENT_BY: Json = {
    "description": "`token:ID`, `upstream` or `fleet`; none where it came from inside.",
    **_TEXT,
}
_RESENT_FROM: Json = {
    "description": "The dispatch whose event was sent again as this one.",
    **_TEXT,
}


def _enum(words: Iterable[str]) -> Json:
    return {"type": "string", "enum": [str(word) for word in words]}


def _list(items: Json, **limits: int) -> Json:
    return {"type": "array", "items": items, **limits}


def _or_null(schema: Json) -> Json:
    return {"oneOf": [schema, {"type": "null"}]}


_VERDICT, _STATE, _STAGE = _enum(Verdict), _enum(State), _enum(FailureStage)
_OWN: Json = {
    "to": {
        "description": "An agent's name, `@group`, `all`, a list of these, or `chain:NAME`.",
        "oneOf": [_NAME, _list(_NAME, minItems=1, maxItems=TARGETS_MAX)],
    },
    "text": {"type": "string", "minLength": 1},
    "session": _or_null(_NAME),
    "lane": {"description": "A name for a priority, of the configuration's `lanes`.", **_NAME},
    "priority": {
        "type": "integer",
        "minimum": PRIORITIES[0],
        "maximum": PRIORITIES[-1],
        "default": PRIORITY_DEFAULT,
    },
}
_ENVELOPE: Json = {
    "id": _NAME,
    "source": _NAME,
    "type": _NAME,
    "subject": _or_null(_NAME),
    "hops": {
        "description": "How many agents' turns it came through; too many are refused.",
        "type": "integer",
        "minimum": 0,
        "maximum": HOPS_MAX,
        "default": 0,
    },
    "traceparent": {"description": "The trace it belongs to (W3C Trace Context).", **_TEXT},
}

_KINDS: dict[type, Json] = {str: _TEXT, int: _COUNT, float: _NUMBER, bool: _FLAG}
_BUS_FIELDS: Json = {
    **{
        name: {"description": field.sentence, **_KINDS[field.kind]}
        for name, field in bus_types.FIELDS.items()
    },
    "verdict": _VERDICT,
    "verification": _VERIFICATION,
    "reason": {
        "description": bus_types.FIELDS["reason"].sentence,
        "examples": [str(reason) for reason in Resync],
        **_TEXT,
    },
}
_CONSUMING: Json = {
    "consuming": {
        "description": "Its worker said `reported_s` ago that it takes work.",
        "type": "boolean",
    },
    "reported_s": _or_null(_NUMBER),
}
_SEMAPHORE = _object(
    "semaphore_locked holder held_s fence queued consuming reported_s",
    semaphore_locked=_FLAG,
    holder=_or_null(_TEXT),
    held_s=_NUMBER,
    fence=_COUNT,
    queued=_COUNT,
    stopped_by={"description": "Why it takes no work for a while.", **_or_null(_TEXT)},
    **_CONSUMING,
)

SCHEMAS: Json = {
    **OVERVIEW_SCHEMAS,
    "Shorthand": _object("text", closed=True, **_ENVELOPE, time=_TIME, **_OWN, data=_object()),
    "CloudEvent": _object(
        "specversion",
        specversion={"const": "1.0"},
        **_ENVELOPE,
        time=_TIME,
        datacontenttype=_TEXT,
        data={"oneOf": [_TEXT, _object("", **_OWN)]},
    ),
    "Accepted": _object(
        "event_id dispatches duplicate",
        event_id=_NAME,
        dispatches=_list(_object("dispatch_id agent", dispatch_id=_TEXT, agent=_TEXT)),
        duplicate=_FLAG,
        chain=_NAME,
        chain_id=_TEXT,
    ),
    "Event": _object(
        "event_id source state route on_member_failure accepted_at members",
        event_id=_NAME,
        source=_NAME,
        sent_by=_SENT_BY,
        resent_from=_RESENT_FROM,
        state=_enum(("open", "ended")),
        route={"description": "Why it went to these agents.", **_TEXT},
        on_member_failure=_enum(("continue", "cancel")),
        accepted_at=_TIME,
        ended_at=_TIME,
        outcomes={"description": "How many of its dispatches ended in which state.", **_COUNTS},
        members=_list(
            _object(
                "dispatch_id agent state",
                dispatch_id=_TEXT,
                agent=_TEXT,
                state=_STATE,
                attempt=_COUNT,
                stage=_STAGE,
                error=_TEXT,
                answer=_TEXT,
            )
        ),
    ),
    "Rejected": _object("error", error=_ref("Problem")),
    "Problem": _object(
        "type title status detail",
        type=_TEXT,
        title=_TEXT,
        status={"type": "integer"},
        detail=_TEXT,
        retry_after_s=_NUMBER,
    ),
    "Dispatch": _object(
        "dispatch_id agent event_id state attempt generation accepted_at",
        dispatch_id=_TEXT,
        agent=_TEXT,
        event_id=_NAME,
        sent_by=_SENT_BY,
        resent_from=_RESENT_FROM,
        resent_as={
            "description": "The newest dispatches in which its event was sent again.",
            **_list(_TEXT),
        },
        session=_NAME,
        state=_STATE,
        attempt=_COUNT,
        generation=_COUNT,
        priority=_COUNT,
        accepted_at=_TIME,
        queued_at=_TIME,
        started_at=_TIME,
        ended_at=_TIME,
        deadline_at=_TIME,
        retry_at=_TIME,
        waiting_for=_or_null(_TEXT),
        joined_to=_TEXT,
        stage=_STAGE,
        error=_TEXT,
        failures={
            "description": "Why its last attempts failed, oldest first. What was said is hidden "
            "without `content=1`.",
            **_list(
                _object(
                    "attempt stage reason",
                    attempt=_COUNT,
                    at=_TIME,
                    stage=_STAGE,
                    reason=_TEXT,
                    kind={"description": "The class of the error.", **_TEXT},
                    place={"description": "File and line of the agent's code.", **_TEXT},
                    message={"description": "What the error, program or service said.", **_TEXT},
                    traceback=_TEXT,
                )
            ),
        },
        steps={"oneOf": [_COUNT, _list(_object("step name attempt elapsed_s"))]},
        tokens_in=_COUNT,
        tokens_out=_COUNT,
        usd=_NUMBER,
        chain=_NAME,
        chain_id=_TEXT,
        chain_stage=_COUNT,
        chain_stages=_COUNT,
        chain_state=_or_null(_TEXT),
        chain_reason=_TEXT,
        round=_COUNT,
        verdict=_VERDICT,
        person=_NAME,
        decided_by=_TEXT,
        announced_at=_TIME,
        verification=_VERIFICATION,
        injected=_VERIFICATION,
        source=_TEXT,
        model=_TEXT,
        text={"description": "The first line of its event, in a list with `content`.", **_TEXT},
        cut={
            "description": "Why the answer may lack its end: the model's limit of tokens, or an "
            "unknown reason. Absent for a whole one.",
            **_enum(("length", "unknown")),
        },
        deliveries=_list(
            _object(
                "name verification tries reason",
                name=_TEXT,
                verification=_or_null(_VERIFICATION),
                tries=_COUNT,
                reason=_or_null(_TEXT),
            )
        ),
        earlier=_list(_object("stage stage_name round agent state verdict answer")),
    ),
    "Page": _object(
        "dispatches cursor", dispatches=_list(_ref("Dispatch")), cursor=_or_null(_TEXT)
    ),
    "Moved": _object(
        "dispatch_id state",
        dispatch_id=_TEXT,
        state=_STATE,
        by={"description": "The name that a decision was made in.", **_TEXT},
    ),
    "CalledBack": _object("dispatch_id duplicate", dispatch_id=_TEXT, duplicate=_FLAG),
    "Agent": _object(
        "agent status online consuming reported_s holder held_s fence queued active paused tier "
        "states unverified oldest_s spend",
        agent=_TEXT,
        status=_enum(("paused", "offline", "busy", "budget", "held", "idle", "removed")),
        runner=_or_null(_TEXT),
        model=_or_null(_TEXT),
        description=_TEXT,
        fallbacks=_list(_TEXT),
        tools=_list(_TEXT),
        deliver=_list(_TEXT),
        budget=_object(
            "usd_per_day tokens_per_day",
            usd_per_day=_or_null(_NUMBER),
            tokens_per_day=_or_null(_COUNT),
        ),
        limits=_object(
            "timeout_s max_pending attempts on_busy",
            timeout_s=_NUMBER,
            max_pending=_COUNT,
            attempts=_COUNT,
            on_busy=_TEXT,
        ),
        online=_FLAG,
        **_CONSUMING,
        holder=_or_null(_TEXT),
        held_s=_NUMBER,
        fence=_COUNT,
        queued=_COUNT,
        active=_or_null(_TEXT),
        paused=_FLAG,
        tier=_COUNT,
        hold_s={"description": "How long it takes no work, after `hold_reason`.", **_NUMBER},
        hold_stage=_or_null(_STAGE),
        hold_reason=_or_null(_TEXT),
        states=_COUNTS,
        unverified=_COUNT,
        oldest_s=_NUMBER,
        spend=_object("usd tokens_in tokens_out", usd=_NUMBER, tokens_in=_COUNT, tokens_out=_COUNT),
    ),
    "Agents": _object(
        "agents totals",
        agents=_list(_ref("Agent")),
        totals={
            "description": "Dispatches in each state, those that wait for people included.",
            **_COUNTS,
        },
    ),
    "Switched": _object(
        "agents",
        agents=_list(
            _object(
                "agent paused changed",
                agent=_TEXT,
                paused=_FLAG,
                changed=_FLAG,
                active=_or_null(_TEXT),
            )
        ),
    ),
    "BusEvent": _object(
        "id epoch type time",
        id={"type": "string", "pattern": r"^\d+-\d+$"},
        epoch=_TEXT,
        type=_enum(bus.TYPES),
        time=_TIME,
        **_BUS_FIELDS,
    ),
    # While the store is down, what only it knows is null.
    "Health": _object(
        "status version reason epoch links g1 g2 g3 g4 failing beat bus saturation",
        status=_enum(("ok", "degraded", "down")),
        version=_TEXT,
        reason={"description": "Why it is down.", **_or_null(_TEXT)},
        epoch=_or_null(_TEXT),
        links=_object("flower", flower=_or_null(_TEXT)),
        g1=_object(
            "enabled redis_url length pending last_id oldest_pending_s",
            wakeups={
                "description": "Why the broker takes no wake-ups, where it is not the store.",
                **_or_null(_TEXT),
            },
        ),
        g2=_object(
            "dispatch_timeout_s semaphores agents",
            agents={"type": "object", "additionalProperties": _SEMAPHORE},
            removed={
                "description": "Agents that are not configured any more: their unfinished work.",
                "type": "object",
                "additionalProperties": _COUNTS,
            },
        ),
        g3=_object(
            "failed retrying dead unverified",
            failed=_or_null(_COUNT),
            retrying=_or_null(_COUNT),
            dead=_or_null(_COUNT),
            unverified=_or_null(_COUNT),
        ),
        g4=_object(
            "intake breaker tier providers spooled direct",
            intake=_or_null(_TEXT),
            direct=_object("running ended", running=_COUNT, ended=_COUNT),
        ),
        failing={
            "description": "Processes that keep ending, as their supervisors tell.",
            **_or_null(
                _list(_object("host process reason", host=_TEXT, process=_TEXT, reason=_TEXT))
            ),
        },
        beat=_object("last_tick_s"),
        bus=_object(
            "clients max_lag oldest_id retention_s retention_entries",
            clients=_COUNT,
            max_lag=_COUNT,
            slowest=_list(_object("client lag", client=_TEXT, lag=_COUNT)),
            delivered=_COUNT,
            evicted=_COUNT,
            resyncs=_COUNTS,
            oldest_id=_or_null(_TEXT),
            retention_s=_NUMBER,
            retention_entries=_COUNT,
        ),
        saturation=_object(
            "queued active capacity oldest_s",
            queued=_or_null(_COUNT),
            active=_or_null(_COUNT),
            capacity=_COUNT,
            oldest_s=_or_null(_NUMBER),
        ),
    ),
}
