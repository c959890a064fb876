"""The answers of `accept.lua`, as a sender is given them."""

from collections.abc import Sequence

from fleet.errors import IdempotencyConflict, Refused, SessionBusy
from fleet.ledger.protocol import Accepted, Answer
from fleet.store import keys
from routing import Event
from routing.event import SENT_BY_FLEET, SENT_LOCALLY, event_key

#: Memory is measured this often.
PRESSURE_RETRY_S = 5.0


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
        limit = "Its source has sent as many events as it may in a minute, caps.sender_per_minute"
        return Refused(f"{limit}: send it later.", retry_after_s=wait_s)
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


def old_digest(event: Event) -> str:
    """The digest under which a version before senders kept a door's event, if another one."""
    if event.sent_by in (SENT_LOCALLY, SENT_BY_FLEET):
        return ""
    return keys.event_digest(event_key(event.source, event.id))
