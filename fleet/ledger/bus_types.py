"""The types of bus entries and their fields, each declared once with its sentence.

The scripts in `fleet/store/scripts` write the entries, by `emit`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BusField:
    """A field of entries; on the stream every value is text."""

    kind: type
    sentence: str

    def parse(self, text: str) -> Any:
        """The value that the text stands for."""
        return text == "true" if self.kind is bool else self.kind(text)


@dataclass(frozen=True, slots=True)
class BusType:
    """A type of entries: when it is written, and the fields that its entries can have."""

    sentence: str
    fields: tuple[str, ...]


FIELDS: Mapping[str, BusField] = {
    "event_id": BusField(str, "The event's id."),
    "dispatch_id": BusField(str, "The dispatch's id."),
    "agent": BusField(str, "The agent's name."),
    "session": BusField(str, "The session, where the event has one."),
    "attempt": BusField(int, "Number of the attempt, from 1."),
    "chain": BusField(str, "Name of the chain that the dispatch is a stage of."),
    "chain_id": BusField(str, "Id of this run through the chain."),
    "chain_stage": BusField(int, "Number of the stage, from 1."),
    "round": BusField(int, "Number of the round, from 1; each revision begins a new one."),
    "person": BusField(str, "The person that a stage waits for."),
    "verdict": BusField(str, "The stage's verdict."),
    "decided_by": BusField(str, "Name of the person who decided."),
    "source": BusField(str, "The event's `source`."),
    "sent_by": BusField(str, "The sender: `token:ID`, `upstream` or `fleet`."),
    "resent_from": BusField(str, "The dispatch whose event was sent again as this one."),
    "stage": BusField(str, "Where the attempt failed, or the dispatch was given up."),
    "reason": BusField(str, "One sentence or word, without content."),
    "elapsed_s": BusField(float, "How long the turn or the outage took, in seconds."),
    "will_retry": BusField(bool, "True when another attempt follows."),
    "retry_at": BusField(float, "When the next attempt is due, in seconds since 1970."),
    "expires_at": BusField(float, "When the decision is due, in seconds since 1970."),
    "outcome": BusField(str, "How the chain ended."),
    "name": BusField(str, "Name of the receiver, agent, model or alert."),
    "verification": BusField(str, "`ack`, `echo` or `timeout_fallback`."),
    "count": BusField(int, "How many events it was."),
    "sender": BusField(str, "The `source` or the sender of the event."),
    "holder": BusField(str, "The worker that holds the agent's lease."),
    "fence": BusField(int, "The lease's fencing token."),
    "breaker": BusField(str, "`broker`; absent for the breaker of a model."),
    "host": BusField(str, "The machine whose breaker it is."),
    "state": BusField(str, "`open` while the alert's condition holds, `closed` when it is over."),
}

_CHAIN = ("chain", "chain_id", "chain_stage", "round", "person", "verdict", "decided_by")
#: The fields that name a dispatch, of which those that apply are there.
DISPATCH_FIELDS = ("event_id", "dispatch_id", "agent", "session", "attempt", *_CHAIN)
_BREAKER = ("breaker", "host", "elapsed_s", "name", "agent", "reason")

TYPES: Mapping[str, BusType] = {
    "event_accepted": BusType(
        "An event was accepted.", ("event_id", "source", "sent_by", "session", "resent_from")
    ),
    "dispatch_queued": BusType(
        "A dispatch waits for its agent: new, tried again, handed back or replayed.",
        (*DISPATCH_FIELDS, "stage", "reason"),
    ),
    "dispatch_started": BusType("A worker began an attempt.", DISPATCH_FIELDS),
    "dispatch_completed": BusType(
        "A dispatch ended with an answer.", (*DISPATCH_FIELDS, "elapsed_s", "verification")
    ),
    "dispatch_failed": BusType(
        "An attempt failed.",
        (*DISPATCH_FIELDS, "stage", "reason", "elapsed_s", "will_retry", "retry_at"),
    ),
    "dispatch_dead": BusType(
        "A dispatch was given up and is a dead letter.", (*DISPATCH_FIELDS, "stage", "reason")
    ),
    "dispatch_cancelled": BusType(
        "A dispatch was cancelled.", (*DISPATCH_FIELDS, "elapsed_s", "reason")
    ),
    "dispatch_dropped": BusType(
        "A full agent, or retention, dropped a dispatch.", (*DISPATCH_FIELDS, "stage", "reason")
    ),
    "dispatch_expired": BusType(
        "A dispatch's deadline passed while it waited.", (*DISPATCH_FIELDS, "stage", "reason")
    ),
    "dispatch_parked": BusType(
        "A dispatch waits for a person's decision.", (*DISPATCH_FIELDS, "reason", "expires_at")
    ),
    "chain_ended": BusType(
        "A run through a chain ended.",
        ("event_id", "chain", "chain_id", "outcome", "reason", "session"),
    ),
    "delivery_verified": BusType(
        "A receiver or a terminal confirmed what it got, or did not in time.",
        (*DISPATCH_FIELDS, "name", "verification", "reason"),
    ),
    "delivery_dropped": BusType(
        "An event was refused on its way in, or dropped by a full agent.",
        ("name", "agent", "count", "reason", "sender", "dispatch_id", "event_id"),
    ),
    "agent_online": BusType("A worker got the agent's lease.", ("agent", "holder", "fence")),
    "agent_offline": BusType(
        "The agent's lease was released or ran out.", ("agent", "reason", "fence")
    ),
    "breaker_opened": BusType(
        "The broker, or a model, failed and is left alone for a while.", _BREAKER
    ),
    "breaker_closed": BusType("The broker, or a model, works again.", _BREAKER),
    "alert": BusType(
        "A condition needs an operator, or is over.", ("name", "reason", "state", *DISPATCH_FIELDS)
    ),
    "resync_required": BusType(
        "The client must fetch the state again; the API sends it, and the bus never holds it.",
        ("reason",),
    ),
}
