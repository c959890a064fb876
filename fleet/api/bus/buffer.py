"""The newest entries of the bus in memory, numbered, and rendered once for all clients.

A client is a position in this buffer; all later entries wait for it. So a thousand clients share
one copy, a replay costs the store nothing, and a live entry follows the replayed entries by
construction.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleet.api.bus.cursor import BEGINNING, Place, place_of
from fleet.ledger.bus import BusEvent


@dataclass(frozen=True, slots=True)
class BufferEntry:
    """A rendered bus entry."""

    event: BusEvent
    place: Place
    text: str  #: as JSON
    sse: bytes  #: as one server-sent event


def render(event: BusEvent, *, cursor: bool = True) -> BufferEntry:
    """Render an entry; without `cursor` a client keeps its last event id."""
    text = json.dumps(event.to_wire(), separators=(",", ":"))
    name = f"{event.epoch}.{event.id}" if event.epoch else event.id
    sse = f"id: {name}\ndata: {text}\n\n" if cursor else f"data: {text}\n\n"
    return BufferEntry(event, place_of(event.id), text, sse.encode())


class EventBuffer:
    """A buffer of at least the newest `capacity` entries since `refill`. Numbers only grow."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity  #: also how far back a client may go
        self._entries: list[BufferEntry] = []
        self._floor = BEGINNING
        self.start = 0  #: number of the oldest entry

    @property
    def end(self) -> int:
        """The number of the next entry."""
        return self.start + len(self._entries)

    def append(self, entries: Iterable[BufferEntry]) -> None:
        """Add entries, each later than all before it."""
        self._entries += entries
        if len(self._entries) > 2 * self.capacity:
            gone = len(self._entries) - self.capacity
            self._floor = self._entries[gone - 1].place
            del self._entries[:gone]
            self.start += gone

    def refill(self, entries: Sequence[BufferEntry], floor: Place) -> None:
        """Replace the content by `entries`, which are all entries after `floor`."""
        self.start = self.end
        self._entries = list(entries)
        self._floor = floor

    def after(self, place: Place) -> int | None:
        """The number of the first entry after `place`; None when the buffer begins later."""
        if place < self._floor:
            return None
        return self.start + bisect_right(self._entries, place, key=lambda entry: entry.place)

    def slice(self, start: int, count: int) -> list[BufferEntry]:
        """Up to `count` entries from number `start`, which must be in the buffer."""
        first = start - self.start
        return self._entries[first : first + count]
