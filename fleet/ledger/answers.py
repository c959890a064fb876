"""The answers of the ledger's scripts, read: to a sender, to a worker, and a chain's trail."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from fleet.errors import IdempotencyConflict, Refused, SessionBusy, StoreLost
from fleet.ledger.arguments import RESENT_FROM, SENT_BY
from fleet.ledger.protocol import Accepted, Answer, ChainPosition, Earlier, SessionMessage
from fleet.store import keys
from routing import Event, Verdict
from routing.event import SENT_LOCALLY, event_key

logger = logging.getLogger(__name__)

#: Memory is freed by retention, and by turns that end.
PRESSURE_RETRY_S = 5.0

#: The roles of a history's messages.
ROLES = frozenset({"user", "assistant"})
_MESSAGE_FIELDS = frozenset({"role", "agent", "event", "text"})


def read_answer(event: Event, answer: Sequence[str]) -> Answer:
    """The answer for one event."""
    verdict, *rest = answer
    if verdict == "conflict":
        return IdempotencyConflict()
    if verdict == "full":
        return Refused(f"{rest[0]} has {rest[1]} events waiting, its max_pending: send it later.")
    if verdict == "busy":
        what = f"The session is busy, and {rest[0]} takes one event of it at a time"
        return SessionBusy(f"{what}: send it later.")
    if verdict == "crowded":
        return Refused(f"{rest[0]} dispatches wait in this fleet, caps.max_waiting: send it later.")
    if verdict == "sender":
        wait_s = max(0.001, int(rest[0]) / 1000)
        limit = "Its sender has sent as many events as it may in a minute, caps.sender_per_minute"
        return Refused(f"{limit}: send it later.", retry_after_s=wait_s)
    if verdict == "lost":
        return StoreLost.of(rest[0])
    if verdict == "memory":
        what = "The store's memory is nearly full: send it later, or give it more."
        return Refused(what, retry_after_s=PRESSURE_RETRY_S)
    chain, *pairs = rest
    key = event_key(event.source, event.id) if verdict == "old" else event.key
    return Accepted(
        event_id=event.id,
        dispatches=tuple(zip(pairs[::2], pairs[1::2], strict=True)),
        duplicate=verdict != "accepted",
        chain=chain or None,
        chain_id=keys.chain_id(key, chain) if chain else None,
    )


def read_payload(payload: str) -> Event:
    """The event as it was accepted."""
    wire = json.loads(payload)
    return Event.parse(
        wire,
        new_id=wire["id"],
        now=wire["time"],
        sent_by=wire.get(SENT_BY, SENT_LOCALLY),
        resent_from=wire.get(RESENT_FROM, ""),
    )


def read_position(parts: Sequence[str]) -> ChainPosition | None:
    """The place in a chain as `claim.lua` answers it; None for a dispatch without a chain."""
    if not parts:
        return None
    place: dict[str, Any] = json.loads(parts[0])
    position = (int(place["stage"]), int(place["round"]))
    return ChainPosition(
        chain=place["name"],
        stage=int(place["stage"]),
        stages=int(place["stages"]),
        stage_name=place["stage_name"],
        round=int(place["round"]),
        on_silence=Verdict(place["silence"]),
        timeout_s=place.get("timeout_s"),
        # The other members of a group that votes do not sway this one.
        earlier=tuple(one for one in read_trail(parts[1:]) if (one.stage, one.round) != position),
    )


def read_trail(entries: Sequence[str]) -> list[Earlier]:
    """The entries of a chain's trail, in the order in which they ended."""
    ended = sorted((json.loads(text) for text in entries), key=lambda one: int(one["n"]))
    return [
        Earlier(
            stage=int(one["stage"]),
            stage_name=one["name"],
            round=int(one["round"]),
            agent=one["agent"],
            state=one["state"],
            verdict=one.get("verdict"),
            answer=one["answer"],
        )
        for one in ended
    ]


def read_history(stored: Sequence[str], event: Event) -> tuple[SessionMessage, ...]:
    """The history for a turn about `event`, oldest first; it begins with a message of a user.

    A message from the store is checked again. A message of neither a user nor an assistant is
    dropped, and never becomes a system's or a tool's.

    Answers of other agents to the same event are left out: these agents ran at the same time.
    """
    found = [_checked(text) for text in stored]
    messages = [message for message in found if message is not None]
    if len(messages) < len(found):
        logger.warning(
            "%d messages of a history are none of a user or an assistant and were dropped",
            len(found) - len(messages),
        )
    digest = keys.event_digest(event.key)
    messages = [message for message in messages if message.event != digest]
    while messages and messages[0].role != "user":
        del messages[0]
    return tuple(messages)


def _checked(stored: str) -> SessionMessage | None:
    try:
        raw: Any = json.loads(stored)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or raw.keys() != _MESSAGE_FIELDS:
        return None
    if not all(isinstance(value, str) for value in raw.values()):
        return None
    if raw["role"] not in ROLES or not raw["text"].strip():
        return None
    return SessionMessage(**raw)
