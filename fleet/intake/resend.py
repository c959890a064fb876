"""An event sent again: a new event made of an old one, with changes, through the one way in.

The old event stays as it is, and so do its dispatches. Each side names the other: the new
dispatches have `resent_from`, the old one has `resent_as`. What intake refuses of any event, it
refuses of this one in the same sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.ledger.answers import read_payload
from fleet.ledger.ids import unknown
from fleet.ledger.operations import NotPossible
from fleet.ledger.states import State
from fleet.store import Store, keys
from fleet.store.connection import reachable
from routing import Event
from routing.event import is_reserved
from routing.rules import CHAIN_MARK

#: The fields of an old event that a new one may have otherwise.
CHANGEABLE = ("to", "text", "session", "priority", "lane")


@dataclass(frozen=True, slots=True)
class OldEvent:
    """The event of a dispatch."""

    event: Event
    target: str  #: runs the dispatch again: its agent, or the chain that it is a stage of
    state: State  #: of the dispatch


def read_old(store: Store, dispatch_id: str) -> OldEvent:
    """The event of a dispatch. Raises Unknown and NotPossible."""
    with reachable():
        found = store.client.hmget(keys.dispatch(dispatch_id), ["agent", "event", "chain", "state"])
        agent, event, chain, state = (str(value or "") for value in found)
        payload = store.client.get(keys.payload(event)) if event else None
    if not agent:
        raise unknown(dispatch_id)
    if not payload:
        raise NotPossible(f"The event of {dispatch_id} is no longer kept.")
    target = f"{CHAIN_MARK}{chain}" if chain else agent
    return OldEvent(read_payload(str(payload)), target, State(state))


def new_event(old: OldEvent, changes: Mapping[str, Any], *, hops: object = None) -> dict[str, Any]:
    """The new event as its sender would write it, without an id and a time of its own.

    `changes` are of CHANGEABLE. `hops` are those of an event that a turn sends; the old event's
    count where they are more.
    """
    wire = old.event.to_wire()
    data = {**wire.pop("data"), "to": [old.target]}
    for name in ("id", "time", "traceparent"):
        wire.pop(name, None)
    if is_reserved(old.event.source):
        # The fleet's own: a person who sends it again is no agent.
        del wire["source"]
    if "lane" in changes:
        del data["priority"]
    if isinstance(hops, int):
        wire["hops"] = max(hops, old.event.hops)
    elif hops is not None:
        wire["hops"] = hops  # no number: for the event's parser to refuse
    return {**wire, "data": {**data, **changes}}
