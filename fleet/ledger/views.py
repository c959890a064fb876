"""Reading the ledger: one dispatch, a list, the counts. Nothing here moves a state."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from fleet.formats.redaction import HIDDEN
from fleet.ledger.answers import read_trail
from fleet.ledger.failures import read_failures
from fleet.ledger.protocol import Earlier
from fleet.ledger.states import State
from fleet.store import Store, keys
from fleet.store.calls import FindCall
from fleet.store.connection import reachable

LIST_MAX = 1000
#: Dispatches that one call of the script examines: the server serves nobody else for two
#: milliseconds.
_SEEN_MAX = 2000
_NUMBERS = (
    "attempt",
    "losses",
    "generation",
    "priority",
    "steps",
    "tier",
    "tokens_in",
    "tokens_out",
    "chain_stage",
    "chain_stages",
    "round",
)
_MILLIS = (
    "announced_ms",
    "accepted_ms",
    "queued_ms",
    "started_ms",
    "ended_ms",
    "deadline_ms",
    "retry_at_ms",
)
_INTERNAL = frozenset(
    {"event", "order", "seq", "call", "committed", "attempt_base", "fence", "lease"}
) | {
    "decided_call",
    "run",
    "turn_fence",
    "joined",
    "quiet_ms",
    "quiet_bytes",
    "deliver",
    "confirms",
}

#: The count that is not a state.
_UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some dispatches, newest first, and where the next page starts (None at the end)."""

    dispatches: list[dict[str, Any]]
    cursor: str | None


def get(store: Store, dispatch_id: str, *, content: bool = False) -> dict[str, Any] | None:
    """One dispatch with its steps and why it waits; None when it is not known.

    `content` adds the event's text, the answer, the steps' results and what failures said;
    otherwise they are hidden.
    """
    with reachable():
        raw: Any = store.client.hgetall(keys.dispatch(dispatch_id))
        if not raw:
            return None
        pipe = store.client.pipeline(transaction=False)
        pipe.hgetall(keys.journal(dispatch_id))
        pipe.hmget(keys.agent(raw["agent"]), "active", "paused", "holder", "hold_ms", "hold_reason")
        pipe.hgetall(keys.delivery(dispatch_id))
        pipe.zrank(keys.due(raw["agent"]), dispatch_id)
        pipe.get(keys.outcome(dispatch_id))
        pipe.get(keys.payload(raw["event"]))
        pipe.zscore(keys.QUIET, dispatch_id)
        pipe.hmget(keys.chain(raw.get("chain_id", "")), "state", "reason")
        pipe.hvals(keys.trail(raw.get("chain_id", "")))
        # Those that share a turn share its failures.
        pipe.lrange(keys.failures(raw.get("joined_to") or dispatch_id), 0, -1)
        journal, now, delivery, rank, answer, payload, quiet, *chained, failed = pipe.execute()
        now_ms = store.clock.now_ms()
    active, paused, holder, hold_ms, reason = now
    held = float(hold_ms or 0) > now_ms and (reason or "its models are left alone")
    record = _record(raw)
    record["waiting_for"] = _waiting_for(record, active, paused, holder, rank, quiet, held)
    if "chain" in record:
        (record["chain_state"], reason), trail = chained
        if reason:
            record["chain_reason"] = reason
        record["earlier"] = [_earlier(one, content) for one in read_trail(trail)]
    record["steps"] = [_step(number, text, content) for number, text in in_order(journal)]
    if failed:
        record["failures"] = read_failures(failed, rfc3339, content=content)
    if delivery:
        record["deliveries"] = _deliveries(delivery)
    if record["state"] in (State.COMPLETED, State.ANNOUNCING):
        record["answer"] = answer if content else HIDDEN
    record["event"] = json.loads(payload) if content and payload else HIDDEN
    return record


def chain(store: Store, chain_id: str) -> dict[str, Any] | None:
    """The state of a chain and its dispatches, each `(id, agent)`; None when it is not known."""
    with reachable():
        raw: Any = store.client.hgetall(keys.chain(chain_id))
        if not raw:
            return None
        found: Any = store.client.hmget(keys.event(raw["event"]), "ids", "later")
    words = " ".join(filter(None, found)).split()
    return {
        "state": raw["state"],
        "reason": raw.get("reason"),
        "dispatches": list(zip(words[::2], words[1::2], strict=True)),
    }


def find(
    store: Store,
    *,
    agent: str | None = None,
    states: Sequence[str] = (),
    limit: int = 20,
    cursor: str | None = None,
) -> Page:
    """Dispatches over all agents, newest accepted first, filtered."""
    found: list[dict[str, Any]] = []
    limit = max(1, min(limit, LIST_MAX))
    if not _any(store, agent, states):
        return Page(dispatches=[], cursor=None)
    below = f"({cursor}" if cursor else "+inf"
    while below:
        call = FindCall(
            agent=agent or "",
            below=below,
            found_max=limit - len(found),
            seen_max=_SEEN_MAX,
            states=list(states),
        )
        below, *flat = store.run(call)
        for place, raw in _read(store, list(zip(flat[::2], flat[1::2], strict=True))):
            if states and raw.get("state") not in states:  # it moved on
                continue
            found.append(_record(raw))
            if len(found) == limit:
                return Page(dispatches=found, cursor=f"{float(place):.0f}")
    return Page(dispatches=found, cursor=None)


def _any(store: Store, agent: str | None, states: Sequence[str]) -> bool:
    """False when the counts say that nothing can be found: what is rare is often absent."""
    if not states:
        return True
    with reachable():
        flat: Any = store.client.hgetall(keys.COUNTS)
    parts = ((*field.partition("|")[::2], value) for field, value in flat.items())
    return any(
        int(value) > 0 and state in states and agent in (None, name) for name, state, value in parts
    )


def _read(store: Store, hits: Sequence[tuple[str, str]]) -> list[tuple[str, dict[str, str]]]:
    """The records there still are, each with its place; a hit is an id and its place."""
    if not hits:
        return []
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        for dispatch_id, _ in hits:
            pipe.hgetall(keys.dispatch(dispatch_id))
        records = pipe.execute()
    return [(place, raw) for (_, place), raw in zip(hits, records, strict=True) if raw]


def counts(store: Store, agents: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Per agent: dispatches in each state that has any, and the age of the oldest waiting one.

    `unverified` are completed dispatches whose receivers never confirmed them.
    """
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        pipe.hgetall(keys.COUNTS)
        for name in agents:
            pipe.zrange(keys.due(name), 0, 0)
        flat, *oldest = pipe.execute()
        pipe = store.client.pipeline(transaction=False)
        for first in oldest:
            pipe.hget(keys.dispatch(first[0] if first else ""), "queued_ms")
        since = pipe.execute() if agents else []
        now_ms = store.clock.now_ms()
    found: dict[str, dict[str, Any]] = {}
    for name, queued_ms in zip(agents, since, strict=True):
        age = max(0.0, (now_ms - float(queued_ms)) / 1000) if queued_ms else 0.0
        found[name] = {"states": {}, "unverified": 0, "oldest_s": round(age, 3)}
    for field, value in flat.items():
        name, _, state = field.partition("|")
        if name in found and state == _UNVERIFIED:
            found[name]["unverified"] = int(value)
        elif name in found and int(value):
            found[name]["states"][state] = int(value)
    return found


def totals(store: Store) -> dict[str, int]:
    """Dispatches in each state that has any: of all agents there ever were, and of people."""
    with reachable():
        flat: Any = store.client.hgetall(keys.COUNTS)
    found: Counter[str] = Counter()
    for field, value in flat.items():
        found[field.partition("|")[2]] += int(value)
    return {state: number for state, number in found.items() if number > 0 and state != _UNVERIFIED}


def spend(store: Store, agents: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Per agent: what its attempts have cost since midnight UTC, by the server's clock."""
    with reachable():
        day = int(store.clock.now_ms()) // 86_400_000
        flat: Any = store.client.hgetall(keys.spend(day))
    return {
        name: {
            "usd": round(float(flat.get(f"{name}|usd", 0)), 6),
            "tokens_in": int(flat.get(f"{name}|tokens_in", 0)),
            "tokens_out": int(flat.get(f"{name}|tokens_out", 0)),
        }
        for name in agents
    }


def _record(raw: dict[str, str]) -> dict[str, Any]:
    record: dict[str, Any] = {"dispatch_id": raw["id"]}
    for name, value in raw.items():
        if name == "id" or name in _INTERNAL or value == "":
            continue
        if name in _NUMBERS:
            record[name] = int(value)
        elif name in _MILLIS:
            record[name.removesuffix("_ms").removesuffix("_at") + "_at"] = rfc3339(float(value))
        elif name == "elapsed_ms":
            record["elapsed_s"] = float(value) / 1000
        elif name == "usd":
            record[name] = float(value)
        elif name == "resent_as":
            record[name] = value.split()
        elif name == "retryable":
            record[name] = value == "1"
        else:
            record[name] = value
    if record.get("state") == State.PARKED:
        record["waiting_for"] = _waiting_for(record, None, None, None, None, None, False)
    return record


def rfc3339(millis: float) -> str:
    """A moment of the server's clock, in milliseconds, as people write it."""
    text = datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _waiting_for(
    record: dict[str, Any],
    active: str | None,
    paused: str | None,
    holder: str | None,
    rank: int | None,
    quiet: float | None,
    held: str | Literal[False],
) -> str | None:
    state = record["state"]
    if state == State.RETRYING:
        return "its next attempt is due later"
    if state == State.ANNOUNCING:
        return "a receiver of its outcome to confirm it"
    if state == State.PARKED:
        return f"a person: {record['person']} is asked to approve or reject it"
    if state != State.QUEUED:
        return None
    if record.get("joined_to"):
        return f"the turn of {record['joined_to']}, which it is part of"
    if quiet:
        return "its session to be quiet"
    if paused:
        return "the agent is paused"
    if held:
        return f"its agent to go on: {held}"
    if rank is None and record.get("session"):
        return "an earlier event of its session"
    if not holder:
        return "no worker serves the agent"
    if active:
        return f"the agent is busy with {active}" + (f", {rank} before it" if rank else "")
    return f"{rank} before it" if rank else "its turn, now"


def _earlier(one: Earlier, content: bool) -> dict[str, Any]:
    return {**asdict(one), "answer": one.answer if content else HIDDEN}


def _deliveries(fields: dict[str, str]) -> list[dict[str, Any]]:
    """Each receiver, how often it was tried, and how it was verified (None: not yet)."""
    states = {name[:-6]: state for name, state in fields.items() if name.endswith("|state")}
    return [
        {
            "name": name,
            "verification": None if state == "open" else state,
            "tries": int(fields[f"{name}|tries"]),
            "reason": fields.get(f"{name}|reason"),
        }
        for name, state in sorted(states.items())
    ]


def in_order(journal: Mapping[str, str]) -> list[tuple[str, str]]:
    """The entries of a journal by the numbers of their steps."""
    return sorted(journal.items(), key=lambda item: (int(item[0].partition(".")[0]), item[0]))


def _step(number: str, text: str, content: bool) -> dict[str, Any]:
    # An earlier version kept NaN, which no answer as JSON can hold.
    entry = json.loads(text, parse_constant=str)
    result = entry["result"]
    step = {
        "step": number,
        "name": entry["name"],
        "attempt": entry["attempt"],
        "elapsed_s": entry["elapsed_s"],
        "result": result if content else HIDDEN,
    }
    if "request" in entry:  # an earlier version kept none
        step["request"] = entry["request"] if content else HIDDEN
    if isinstance(result, dict):
        for name in ("model", "tier", "tokens_in", "tokens_out", "usd", "verification"):
            if name in result:
                step[name] = result[name]
    return step
