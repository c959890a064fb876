"""The event as the ledger and the spool store it."""

import json

from routing import Event
from routing.event import SENT_LOCALLY

#: The sender of a stored event, beside the fields that its sender sent.
_SENT_BY = "sentby"


def payload_of(event: Event) -> str:
    """The event as it is stored."""
    wire = event.to_wire()
    if event.sent_by:
        wire[_SENT_BY] = event.sent_by
    return json.dumps(wire, ensure_ascii=False, separators=(",", ":"))


def read_payload(payload: str) -> Event:
    """The event as it was accepted."""
    wire = json.loads(payload)
    sent_by = wire.get(_SENT_BY, SENT_LOCALLY)
    return Event.parse(wire, new_id=wire["id"], now=wire["time"], sent_by=sent_by)
