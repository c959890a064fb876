"""The bus and the ledger of a fleet elsewhere, as `watch` and `fleet events` read them.

A thread reads the connection, so that a read can end in time although nothing comes. A connection
that breaks is reported once, and made anew by the next read, after the entry that was read last.
"""

import json
import queue
import threading
from collections.abc import Mapping
from typing import Any

from fleet.cli.waiting import RESYNC
from fleet.client.fleet import Fleet
from fleet.client.sse import place_of
from fleet.errors import ApiUnreachable, FleetError, Unknown
from fleet.ledger.bus import BusEvent

Record = dict[str, Any]

#: Of the first place: longer than the API's own wait for its broker.
_GREETING_S = 10.0
#: Entries that wait to be read; a server that sends more waits.
_WAITING_MAX = 1000


def event_of(entry: Mapping[str, Any]) -> BusEvent:
    """An entry of the bus from its form on the wire."""
    fields = dict(entry)
    named = {name: str(fields.pop(name, "")) for name in ("id", "epoch", "type", "time")}
    return BusEvent(**named, fields=fields)


class _Feed:
    """One connection to the bus, read by a thread of its own."""

    def __init__(self, fleet: Fleet, after: str | None) -> None:
        self._fleet, self._after = fleet, after
        self._closed = threading.Event()
        #: What came: the first place, entries, and at the end why it ended.
        self._came: queue.Queue[str | BusEvent | FleetError] = queue.Queue(_WAITING_MAX)
        threading.Thread(target=self._read, name="bus", daemon=True).start()

    def next(self, timeout_s: float) -> "str | BusEvent | FleetError | None":
        """The next that came; None when nothing does in time."""
        try:
            return self._came.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Read no further: the thread ends with the next thing that comes."""
        self._closed.set()

    def _read(self) -> None:
        try:
            with self._fleet.follow(self._after) as stream:
                for one in stream:
                    if one.data.startswith("after "):
                        self._put(place_of(one) or "")
                    elif one.name:
                        self._put(event_of(json.loads(one.data)))
                    if self._closed.is_set():
                        return
            self._put(ApiUnreachable(f"The fleet at {self._fleet.url} ended the connection."))
        except FleetError as error:
            self._put(error)
        except ValueError:
            self._put(ApiUnreachable("An entry came that is not JSON; the connection is damaged."))

    def _put(self, what: "str | BusEvent | FleetError") -> None:
        while not self._closed.is_set():
            try:
                self._came.put(what, timeout=1.0)
                return
            except queue.Full:
                continue


class RemoteSource:
    """A `WatchSource`. Used by one thread."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._feed: _Feed | None = None
        self._after = ""  #: where the feed is
        self._epoch = ""

    def last_id(self) -> str:
        """The place where a connection begins that is made now, and kept.

        Empty while the fleet's broker is away. Raises BrokerUnavailable, and Forbidden without the
        scope to read any agent.
        """
        self._epoch, _, self._after = self._begin(None).rpartition(".")
        return self._after

    def read(self, after: str, *, block_ms: int) -> list[BusEvent]:
        """The entries after `after`; waits up to `block_ms` for the first one."""
        if self._feed is None or after != self._after:
            self._begin(f"{self._epoch}.{after}" if self._epoch else after)
            self._after = after
        found: list[BusEvent] = []
        timeout_s = block_ms / 1000
        while self._feed and (came := self._feed.next(timeout_s)) is not None:
            if isinstance(came, FleetError):
                self._end_feed()
                if not found:  # otherwise the next read finds out
                    raise came
            if isinstance(came, BusEvent):
                found.append(self._placed(came))
                timeout_s = 0.0
        return found

    def dispatch(self, dispatch_id: str) -> Record | None:
        """The record of a dispatch with its content."""
        try:
            return self._fleet.dispatch(dispatch_id, content=True)
        except Unknown:
            return None

    def chain(self, chain_id: str) -> Record | None:
        """A run through a chain."""
        try:
            found = self._fleet.chain(chain_id)
        except Unknown:
            return None
        pairs = [(one["dispatch_id"], one["agent"]) for one in found["dispatches"]]
        return {**found, "dispatches": pairs}

    def close(self) -> None:
        """End the connection."""
        self._end_feed()

    def _begin(self, cursor: str | None) -> str:
        """Connect anew; returns the place that the connection begins at."""
        self._end_feed()
        feed = _Feed(self._fleet, cursor)
        came = feed.next(_GREETING_S)
        if isinstance(came, str):
            self._feed = feed
            return came
        feed.close()
        if isinstance(came, FleetError):
            raise came
        raise ApiUnreachable(f"The fleet at {self._fleet.url} does not show its bus in time.")

    def _placed(self, event: BusEvent) -> BusEvent:
        """Move on to an entry; a notice without a place of its own stays where the reader was."""
        self._epoch = event.epoch or self._epoch
        if event.type == RESYNC and event.id == "0-0":
            return BusEvent(
                id=self._after,
                epoch=event.epoch,
                type=event.type,
                time=event.time,
                fields=event.fields,
            )
        self._after = event.id
        return event

    def _end_feed(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.close()
