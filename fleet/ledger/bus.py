"""The bus: the durable, replayable stream of fleet events. Scripts append; this module reads.

A place on the bus is a stream id. Readers start from a concrete id, never from `$` twice: an event
that comes between two reads would be missed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from redis.exceptions import ResponseError

from fleet.ledger import bus_types
from fleet.store import Store, keys
from fleet.store.calls import AlertCall, RefusedCall
from fleet.store.connection import reachable

#: Time that one read waits for news, after which its reader can do other work.
BLOCK_MS = 2000
CHUNK = 200

#: Every `type` an entry can have.
TYPES = tuple(bus_types.TYPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class BusEvent:
    """One entry. `fields` holds what applies: event_id, dispatch_id, agent, session, attempt ..."""

    id: str
    epoch: str
    type: str
    time: str  #: RFC 3339, from the stream id: the server's clock
    fields: Mapping[str, Any] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """The entry as clients see it."""
        return {
            "id": self.id,
            "epoch": self.epoch,
            "type": self.type,
            "time": self.time,
            **self.fields,
        }


def parse_entry(entry_id: str, raw: Mapping[str, str]) -> BusEvent:
    """A stream entry with its numbers as numbers."""
    fields = {name: _typed(name, raw[name]) for name in raw if name not in ("type", "epoch")}
    millis = int(entry_id.partition("-")[0])
    time = datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds")
    return BusEvent(
        id=entry_id,
        epoch=raw.get("epoch", ""),
        type=raw.get("type", ""),
        time=time.replace("+00:00", "Z"),
        fields=fields,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The extent of the stream at one moment."""

    epoch: str  #: names the life of the data set; empty before its first entry
    first: str | None  #: id of the oldest entry that is kept
    last: str  #: id of the newest entry ever added, or `0-0`
    trimmed: bool  #: True when older entries than `first` were once there


def window(store: Store) -> Window:
    """The ends of the stream: a reader can resume at a place between them."""
    with reachable():
        pipe = store.client.pipeline(transaction=True)
        pipe.get(keys.EPOCH)
        pipe.xinfo_stream(keys.BUS)
        epoch, info = pipe.execute(raise_on_error=False)
        if isinstance(info, ResponseError) and "no such key" in str(info):
            return Window(epoch=epoch or "", first=None, last="0-0", trimmed=False)
        if isinstance(info, Exception):
            raise info
    # Servers before 7.0 do not count what was added: then entries may be gone.
    added = info.get("entries-added")
    return Window(
        epoch=epoch or "",
        first=info["first-entry"][0] if info["first-entry"] else None,
        last=str(info["last-generated-id"]),
        trimmed=added is None or added > info["length"],
    )


def tail(store: Store, count: int) -> list[BusEvent]:
    """The newest `count` entries, oldest first, read in chunks that leave the server to others."""
    found: list[BusEvent] = []
    newest = "+"
    while len(found) < count:
        with reachable():
            rows: Any = store.client.xrevrange(
                keys.BUS, max=newest, count=min(CHUNK, count - len(found))
            )
        found += [parse_entry(entry_id, raw) for entry_id, raw in rows]
        if len(rows) < CHUNK:
            break
        newest = f"({rows[-1][0]}"
    return found[::-1]


def last_id(store: Store) -> str:
    """The id of the newest entry ever added, or `0-0`: where a reader of news starts."""
    with reachable():
        if not store.client.exists(keys.BUS):
            return "0-0"
        return str(store.client.xinfo_stream(keys.BUS)["last-generated-id"])


def order(stream_id: str) -> tuple[int, int]:
    """A stream id as numbers, which sort as the stream does."""
    millis, _, number = stream_id.partition("-")
    return int(millis), int(number or 0)


def is_trimmed(store: Store, after: str) -> bool:
    """True when entries that came right after this id are no longer kept."""
    with reachable():
        first = store.client.xrange(keys.BUS, count=1)
        info = store.client.xinfo_stream(keys.BUS) if first else {}
    deleted = info.get("max-deleted-entry-id", "0-0")
    return bool(first) and order(after) < order(str(deleted))


def read(
    store: Store, after: str, *, block_ms: int | None = None, count: int = CHUNK
) -> list[BusEvent]:
    """Up to `count` entries after `after`; waits up to `block_ms` for the first one.

    The store must have been opened with a socket timeout longer than `block_ms`, or none.
    """
    with reachable():
        answer: Any = store.client.xread({keys.BUS: after}, count=count, block=block_ms)
    return [parse_entry(entry_id, raw) for entry_id, raw in _rows(answer, keys.BUS)]


def read_beside(
    store: Store, after: str, other: str, other_after: str, *, block_ms: int, count: int
) -> tuple[list[BusEvent], bool]:
    """As `read`; and whether another stream has news, as of the same moment."""
    with reachable():
        answer: Any = store.client.xread(
            {keys.BUS: after, other: other_after}, count=count, block=block_ms
        )
    news = [parse_entry(entry_id, raw) for entry_id, raw in _rows(answer, keys.BUS)]
    return news, bool(_rows(answer, other))


def _rows(answer: Any, stream: str) -> list[tuple[str, dict[str, str]]]:
    """The rows of one stream in an answer of XREAD, in either version of the protocol."""
    if isinstance(answer, dict):
        found = answer.get(stream)
        return list(found[0]) if found else []
    return next((list(rows) for name, rows in answer or () if name == stream), [])


def follow(store: Store, after: str) -> Iterator[BusEvent | None]:
    """Entries after `after`, for ever; None each time BLOCK_MS passed without one."""
    while True:
        news = read(store, after, block_ms=BLOCK_MS)
        if not news:
            yield None
        for entry in news:
            after = entry.id
            yield entry


def alert(
    store: Store,
    name: str,
    reason: str,
    state: Literal["", "open", "closed"] = "",
    *,
    once_in_s: float = 0.0,
) -> None:
    """Put an `alert` on the bus; `reason` holds no content, `state` is `open` or `closed`.

    With `once_in_s` the same alert is given only once in that time, by all callers together.
    """
    store.run(AlertCall(name=name, reason=reason, state=state, once_ms=int(once_in_s * 1000)))


def refused(store: Store, carrier: str, reason: str, sender: str, agent: str = "") -> None:
    """Put a `delivery_dropped` on the bus, for an event that was refused on its way in."""
    store.run(RefusedCall(carrier=carrier, reason=reason, sender=sender, agent=agent))


def _typed(name: str, value: str) -> Any:
    known = bus_types.FIELDS.get(name)
    return known.parse(value) if known else value
