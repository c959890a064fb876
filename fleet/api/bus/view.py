"""A selection of the bus, and its batches, each encoded once for all clients with this selection.

Clients with the same filter share a view. Those that keep up are at the same number, so they get
the same batch: the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from fleet.api.bus.buffer import BufferEntry, EventBuffer
from fleet.api.bus.cursor import BEGINNING, Place
from fleet.api.bus.frames import text_frame
from fleet.ledger.bus import BusEvent

#: Entries in one write to a WebSocket: what a client that reads nothing can cost beside the
#: server's buffer.
WRITE_MAX = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class BusFilter:
    """A client's selection of entries; an empty set selects all."""

    agents: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()

    @property
    def matches_all(self) -> bool:
        """True when every entry is selected."""
        return not (self.agents or self.types or self.sessions)

    def matches(self, event: BusEvent) -> bool:
        """True when this entry is selected."""
        fields = event.fields
        return (
            (not self.agents or fields.get("agent") in self.agents)
            and (not self.types or event.type in self.types)
            and (not self.sessions or fields.get("session") in self.sessions)
        )


class BusBatch:
    """Entries that are sent together; an empty batch is false."""

    def __init__(
        self,
        entries: Sequence[BufferEntry] = (),
        end: int = 0,
        first: Place = BEGINNING,
        last: Place = BEGINNING,
    ) -> None:
        self.entries = entries
        self.end = end  #: number of the next entry, selected or not
        self.first, self.last = first, last  #: places of the examined entries

    def __bool__(self) -> bool:
        return bool(self.entries)

    @cached_property
    def frames(self) -> list[bytes]:
        """The entries as WebSocket messages, up to WRITE_MAX of them in one write."""
        each = [text_frame(entry.text) for entry in self.entries]
        return [b"".join(each[at : at + WRITE_MAX]) for at in range(0, len(each), WRITE_MAX)]

    @cached_property
    def sse(self) -> bytes:
        """The entries as server-sent events."""
        return b"".join([entry.sse for entry in self.entries])

    def after(self, place: Place) -> "BusBatch":
        """The same without entries up to `place`."""
        entries = [entry for entry in self.entries if entry.place > place]
        return BusBatch(entries, self.end, self.first, self.last)


class View:
    """The batches of one filter. It remembers the last: the next client asks for the same."""

    def __init__(self, log: EventBuffer, bus_filter: BusFilter) -> None:
        self._log = log
        self._filter = bus_filter
        self._at: tuple[int, int] | None = None  #: number and count of the remembered batch
        self._batch = BusBatch()

    def batch(self, start: int, count: int) -> BusBatch:
        """Examine up to `count` entries from number `start`, of which there must be one."""
        if self._at != (start, count):
            self._batch = self._make(start, count)
            self._at = start, count
        return self._batch

    def _make(self, start: int, count: int) -> BusBatch:
        entries = examined = self._log.slice(start, count)
        if not self._filter.matches_all:
            entries = [entry for entry in examined if self._filter.matches(entry.event)]
        return BusBatch(entries, start + len(examined), examined[0].place, examined[-1].place)
