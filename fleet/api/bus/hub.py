"""The bus in one API process: one reader fills one buffer, and every client follows it.

A client detects its own gaps by comparing numbers (`fleet.api.bus.follower`), so no full queue can
lose a notice.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any
from weakref import WeakValueDictionary

from fleet.api.auth.access import ANYBODY, Access, ApiCaller
from fleet.api.bus.buffer import BufferEntry, EventBuffer
from fleet.api.bus.cursor import BEGINNING, Place, place_of
from fleet.api.bus.follower import REPLAY_MAX, Follower
from fleet.api.bus.reader import Reader
from fleet.api.bus.view import BusFilter, View
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.auth.tokens import Token
from fleet.errors import BrokerUnavailable, FleetError
from fleet.ledger import bus
from fleet.ledger.bus import Window
from fleet.store import Store

#: Spare entries of the buffer: live entries do not displace entries under replay.
REPLAY_MARGIN = 2000
#: How many of the slowest clients `state` lists.
SLOWEST_MAX = 10
WINDOW_TIMEOUT_S = 2.0
#: Clients written to in a row; requests and other clients are served between two slices.
SLICE = 50


class Hub:
    """The shared part of all clients of this process. Used in one event loop."""

    def __init__(
        self, store: Callable[[], Store], threads: BoundedThreads, client_queue: int, access: Access
    ) -> None:
        self.log = EventBuffer(REPLAY_MAX + REPLAY_MARGIN)
        self.epoch = ""
        self.head: Place = BEGINNING  #: the newest place read
        self.up = False  #: the buffer follows the bus
        self.away = False  #: the broker did not answer; neither up nor away: the reader connects
        self.outages = 0
        self.epoch_changes = 0  #: how often the data set was replaced
        self.closing = False
        self.client_queue = client_queue
        self.followers: set[Follower] = set()
        #: Since the start: entries delivered, clients cut off, and notices by reason.
        self.delivered = 0
        self.evicted = 0
        self.resyncs: Counter[str] = Counter()
        self._store = store
        self._threads = threads
        self._access = access
        self._views: WeakValueDictionary[BusFilter, View] = WeakValueDictionary()
        access.changed = self._check_callers
        chunk = min(bus.CHUNK, client_queue)
        self._reader = Reader(store, self, chunk=chunk, history=self.log.capacity)
        self._window: Window | None = None
        self._window_at = float("-inf")
        self._querying = asyncio.Lock()
        self._replaying = asyncio.Lock()

    def start(self) -> None:
        """Start the reader. Call it in the event loop of the clients."""
        self._reader.start()

    def close(self) -> None:
        """Stop every follower in order, and the reader; safe to repeat."""
        self.closing = True
        self._reader.stop()
        self._wake()

    async def follow(
        self, cursor: str | None, bus_filter: BusFilter, caller: ApiCaller = ANYBODY, name: str = ""
    ) -> Follower:
        """Create a client behind `cursor`, or at the newest entry without a cursor.

        Every entry that enters the bus after this returns reaches the client.
        """
        follower = Follower(self, cursor, self._view(bus_filter), caller, name)
        self.followers.add(follower)
        self._reader.wake()
        if not self._access.admits(caller):  # revoked since the request was admitted
            follower.dismiss()
        try:
            await follower.reconcile()
        except BaseException:
            self.leave(follower)
            raise
        return follower

    def leave(self, follower: Follower) -> None:
        """Remove a client."""
        self.followers.discard(follower)

    def _view(self, bus_filter: BusFilter) -> View:
        """The view of all clients with this filter."""
        view = self._views.get(bus_filter)
        if view is None:
            view = self._views[bus_filter] = View(self.log, bus_filter)
        return view

    def state(self) -> dict[str, Any]:
        """Figures about the clients, for `/health` and metrics. Call it in the event loop."""
        behind = [follower for follower in self.followers if follower.lag]
        behind.sort(key=lambda follower: -follower.lag)
        return {
            "clients": len(self.followers),
            "max_lag": behind[0].lag if behind else 0,
            "slowest": [
                {"client": follower.name, "lag": follower.lag} for follower in behind[:SLOWEST_MAX]
            ],
            "delivered": self.delivered,
            "evicted": self.evicted,
            "resyncs": dict(self.resyncs),
        }

    async def replay_turn(self) -> None:
        """Wait for the turn to send a batch of missed entries: one client at a time.

        Between two batches every client with a live entry sends it.
        """
        async with self._replaying:
            await asyncio.sleep(0.001)

    async def window(self) -> Window:
        """The stream's range, queried after this call began. Raises FleetError.

        Clients that wait at the same time share one query.
        """
        requested_at = monotonic()
        async with self._querying:
            if self._window_at < requested_at:
                self._window_at, self._window = monotonic(), await self._query_window()
            if self._window is None:
                raise BrokerUnavailable("The bus cannot be read: the broker does not answer.")
            return self._window

    async def _query_window(self) -> Window | None:
        try:
            async with asyncio.timeout(WINDOW_TIMEOUT_S):
                return await self._threads.run(lambda: bus.window(self._store()))
        except (TimeoutError, FleetError):
            return None  # the reader logs why

    # Called by the reader (`fleet.api.bus.reader.BusSink`):

    def refill(self, window: Window, entries: list[BufferEntry], epoch_changed: bool) -> None:
        """Refill the buffer."""
        complete = len(entries) < self.log.capacity and not window.trimmed
        oldest = entries[0].place if entries else place_of(window.last)
        self.log.refill(entries, BEGINNING if complete else oldest)
        self.epoch = window.epoch or (entries[-1].event.epoch if entries else "")
        self.head = max([place_of(window.last), *(entry.place for entry in entries[-1:])])
        self.epoch_changes += epoch_changed
        self.resumed()

    async def publish(self, epoch: str, entries: list[BufferEntry]) -> None:
        """Append to the buffer, and write to the clients that keep up, in slices."""
        if self.epoch not in ("", epoch):
            self.epoch_changes += 1
            self.log.refill([], BEGINNING)
        self.epoch = epoch
        self.log.append(entries)
        self.head = entries[-1].place
        behind = deque(self.followers)
        while behind and not self.closing:
            for _ in range(min(SLICE, len(behind))):
                follower = behind.popleft()
                if follower.push():
                    behind.append(follower)
            await asyncio.sleep(0)

    def resumed(self) -> None:
        """Mark the buffer as current again."""
        self.up, self.away = True, False
        self._wake()

    def lost(self) -> None:
        """Record an outage."""
        self.outages += self.up
        self.up, self.away = False, True
        self._wake()

    def may_idle(self) -> bool:
        """True when no client follows; the buffer is not current from then on."""
        if self.followers:
            return False
        self.up = False
        return True

    def update_tokens(self, newest: str, table: Mapping[str, Token]) -> None:
        """Forward a change of the tokens to the access table."""
        self._access.replace(newest, table)

    def _check_callers(self) -> None:
        for follower in self.followers:
            if not self._access.admits(follower.caller):
                follower.dismiss()

    def _wake(self) -> None:
        for follower in self.followers:
            follower.wake.set()
