"""Reading an event: the parent record of its dispatches. It ends when the last of them does.

The record is written by the scripts that move its members, so it always agrees with them.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fleet.formats.redaction import HIDDEN
from fleet.ledger.operations import NotPossible
from fleet.ledger.states import State
from fleet.ledger.views import rfc3339
from fleet.store import Store, keys
from fleet.store.connection import reachable
from routing.event import SENT_LOCALLY, SOURCE_DEFAULT, event_key

#: The fields that hold an event's dispatches with their agents.
_MEMBERS = ("ids", "later")


def find(
    store: Store,
    event_id: str,
    source: str,
    senders: Iterable[str],
    mine: str = SENT_LOCALLY,
    *,
    reads: Callable[[str], bool] = lambda _: True,
) -> str | None:
    """The sender of `senders` that has sent such an event; None where nobody has.

    Of several senders it is `mine`. Raises NotPossible where `mine` is not among them. An event
    counts only for who `reads` each of its agents.
    """
    senders = list(dict.fromkeys((mine, *senders)))
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        for one in senders:
            pipe.hmget(keys.event(keys.event_digest(event_key(source, event_id, one))), _MEMBERS)
        found = [
            one
            for one, (ids, later) in zip(senders, pipe.execute(), strict=True)
            if ids is not None and all(reads(agent) for _, agent in _pairs(f"{ids} {later or ''}"))
        ]
    if len(found) > 1 and found[0] != mine:
        raise NotPossible("Several senders have sent an event of this id: name its `sent_by`.")
    return found[0] if found else None


def get(
    store: Store,
    event_id: str,
    source: str = SOURCE_DEFAULT,
    sent_by: str = SENT_LOCALLY,
    *,
    content: bool = False,
) -> dict[str, Any] | None:
    """One event with each member's state or outcome; None when it is not known.

    `content` adds the event itself and the members' answers; otherwise they are hidden.
    """
    digest = keys.event_digest(event_key(source, event_id, sent_by))
    with reachable():
        found: Any = store.client.hmget(keys.event(digest), _MEMBERS)
        ids, later = found
        if ids is None:
            return None
        pairs = _pairs(f"{ids} {later or ''}")
        # One snapshot: an event that is open has a member that is not terminal.
        pipe = store.client.pipeline(transaction=True)
        pipe.hgetall(keys.event(digest))
        pipe.get(keys.payload(digest))
        for dispatch_id, _ in pairs:
            pipe.hmget(keys.dispatch(dispatch_id), "state", "attempt", "stage", "error")
            if content:
                pipe.get(keys.outcome(dispatch_id))
        raw, payload, *rows = pipe.execute()
    if not raw:
        return None
    answers = rows[1::2] if content else [HIDDEN] * len(pairs)
    records = rows[::2] if content else rows
    event = _event(raw)
    event["members"] = [
        _member(pair, raw, record, answer)
        for pair, record, answer in zip(pairs, records, answers, strict=True)
    ]
    ended = Counter(one["state"] for one in event["members"] if State(one["state"]).terminal)
    event["outcomes"] = dict(ended)
    event["event"] = json.loads(payload) if content and payload else HIDDEN
    return event


def _pairs(ids: str) -> list[tuple[str, str]]:
    words = ids.split()
    return list(zip(words[::2], words[1::2], strict=True))


def _event(raw: dict[str, str]) -> dict[str, Any]:
    return {
        "event_id": raw["event_id"],
        "source": raw["source"],
        **{name: raw[name] for name in ("sent_by", "resent_from") if name in raw},
        "state": "open" if int(raw["open"]) > 0 else "ended",
        "route": raw.get("route", ""),
        "on_member_failure": "cancel" if "cancel_keep_ms" in raw else "continue",
        **dict(_times(raw)),
    }


def _times(raw: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name in ("accepted", "ended"):
        if f"{name}_ms" in raw:
            yield f"{name}_at", rfc3339(float(raw[f"{name}_ms"]))


def _member(
    pair: tuple[str, str], raw: dict[str, str], record: list[str | None], answer: str | None
) -> dict[str, Any]:
    """Its outcome outlives its own record, which retention may have taken away."""
    dispatch_id, agent = pair
    state, attempt, stage, error = record
    member: dict[str, Any] = {
        "dispatch_id": dispatch_id,
        "agent": agent,
        "state": raw.get(f"end:{dispatch_id}") or state or State.DROPPED,
    }
    if attempt is not None:
        member["attempt"] = int(attempt)
    if stage:
        member["stage"] = stage
    if error:
        member["error"] = error
    if member["state"] == State.COMPLETED and answer is not None:
        member["answer"] = answer
    return member
