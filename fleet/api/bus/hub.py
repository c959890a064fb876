"""The bus in one API process: one reader fills one log, and every client follows that.

What a client missed, and why, it finds out by itself when it looks (see `fleet.api.bus.follower`):
a notice is a comparison of numbers, so no full queue can swallow it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from fleet.api.auth.access import ANYBODY, Access, ApiCaller
from fleet.api.bus.buffer import BufferEntry, EventBuffer
from fleet.api.bus.cursor import BEGINNING, Place, place_of
from fleet.api.bus.follower import REPLAY_MAX, Follower, Wanted
from fleet.api.bus.reader import Reader
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.auth.tokens import Token
from fleet.errors import BrokerUnavailable, FleetError
from fleet.ledger import bus
from fleet.ledger.bus import Window
from fleet.store import Store

#: The log holds at least so many entries more: live ones do not push out what is replayed.
REPLAY_MARGIN = 2000
#: So many of the clients that are furthest behind are told one by one.
SLOWEST_MAX = 10
WINDOW_TIMEOUT_S = 2.0


class Hub:
    """What all clients of this process share. Everything here runs in one event loop."""

    def __init__(
        self, store: Callable[[], Store], lane: BoundedThreads, client_queue: int, access: Access
    ) -> None:
        self.log = EventBuffer(REPLAY_MAX + REPLAY_MARGIN)
        self.epoch = ""
        self.head: Place = BEGINNING  #: the newest place that was read
        self.up = False  #: the log is what the bus holds, and grows with it
        self.away = False  #: the broker did not answer; neither of both: the reader connects
        self.outages = 0  #: how often the broker went away
        self.lives = 0  #: how often the data set was another one
        self.closing = False
        self.client_queue = client_queue
        self.followers: set[Follower] = set()
        #: Since the start: entries taken by clients, clients cut off, and notices by reason.
        self.delivered = 0
        self.evicted = 0
        self.resyncs: Counter[str] = Counter()
        self._store = store
        self._lane = lane
        self._access = access
        access.changed = self._check_callers
        chunk = min(bus.CHUNK, client_queue)
        self._reader = Reader(store, self, chunk=chunk, history=self.log.capacity)
        self._seen: Window | None = None
        self._seen_at = float("-inf")
        self._looking = asyncio.Lock()
        self._replaying = asyncio.Lock()

    def start(self) -> None:
        """Begin. Call in the event loop that serves the clients."""
        self._reader.start()

    def close(self) -> None:
        """End every follower in order, and the reader; safe to repeat."""
        self.closing = True
        self._reader.stop()
        self._wake()

    async def follow(
        self, cursor: str | None, wanted: Wanted, caller: ApiCaller = ANYBODY, name: str = ""
    ) -> Follower:
        """A new client, placed behind `cursor`, or at the newest entry without one.

        Everything that enters the bus after this returns will reach the client.
        """
        follower = Follower(self, cursor, wanted, caller, name)
        self.followers.add(follower)
        self._reader.need()
        if not self._access.holds(caller):  # no more, since it was let in
            follower.evict()
        try:
            await follower.reconcile()
        except BaseException:
            self.leave(follower)
            raise
        return follower

    def leave(self, follower: Follower) -> None:
        """Forget a client."""
        self.followers.discard(follower)

    def state(self) -> dict[str, Any]:
        """The clients, for `/health` and metrics: how far behind they are, and what was done.

        Call it in the event loop, where none comes or goes meanwhile.
        """
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
        """Wait for the turn to send a chunk of missed entries: one client at a time.

        Between two chunks everybody who has a live entry before it sends that.
        """
        async with self._replaying:
            await asyncio.sleep(0.001)

    async def window(self) -> Window:
        """What the stream holds, seen after this was called. Raises FleetError.

        A thousand clients that reconnect at once share one look: those who wait for it, take it.
        """
        asked = monotonic()
        async with self._looking:
            if self._seen_at < asked:
                self._seen_at, self._seen = monotonic(), await self._look()
            if self._seen is None:
                raise BrokerUnavailable("The broker does not say what is on the bus.")
            return self._seen

    async def _look(self) -> Window | None:
        try:
            async with asyncio.timeout(WINDOW_TIMEOUT_S):
                return await self._lane.run(lambda: bus.window(self._store()))
        except (TimeoutError, FleetError):
            return None  # the reader logs why

    # What the reader tells (`fleet.api.bus.reader.BusSink`):

    def refill(self, window: Window, entries: list[BufferEntry], another_life: bool) -> None:
        """The log starts anew."""
        whole = len(entries) < self.log.capacity and not window.trimmed
        oldest = entries[0].place if entries else place_of(window.last)
        self.log.refill(entries, BEGINNING if whole else oldest)
        self.epoch = window.epoch or (entries[-1].event.epoch if entries else "")
        self.head = max([place_of(window.last), *(entry.place for entry in entries[-1:])])
        self.lives += another_life
        self.resumed()

    def publish(self, epoch: str, entries: list[BufferEntry]) -> None:
        """The log grows."""
        if self.epoch not in ("", epoch):
            self.lives += 1
            self.log.refill([], BEGINNING)
        self.epoch = epoch
        self.log.append(entries)
        self.head = entries[-1].place
        self._wake()

    def resumed(self) -> None:
        """The log is true again."""
        self.up, self.away = True, False
        self._wake()

    def lost(self) -> None:
        """The log stands still."""
        self.outages += self.up
        self.up, self.away = False, True
        self._wake()

    def may_rest(self) -> bool:
        """Without a client the log need not grow; it is not true then."""
        if self.followers:
            return False
        self.up = False
        return True

    def tokens(self, newest: str, table: Mapping[str, Token]) -> None:
        """Who may follow has changed."""
        self._access.replace(newest, table)

    def _check_callers(self) -> None:
        for follower in self.followers:
            if not self._access.holds(follower.caller):
                follower.evict()

    def _wake(self) -> None:
        for follower in self.followers:
            follower.wake.set()
