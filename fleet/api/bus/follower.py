"""One client of the bus: its place in the hub's buffer, and the reasons to fetch the state."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fleet.api.auth.access import ANYBODY, ApiCaller
from fleet.api.bus.buffer import BufferEntry, render
from fleet.api.bus.cursor import BEGINNING, Cursor, Place, Resync, parse_cursor, verdict
from fleet.api.bus.frames import FrameWriter
from fleet.api.bus.view import WRITE_MAX, BusBatch, View
from fleet.errors import FleetError
from fleet.ledger.bus import BusEvent

if TYPE_CHECKING:
    from fleet.api.bus.hub import Hub

#: Entries in one batch for a client; other clients are served between two batches.
CHUNK = 200
#: The same for missed entries: live entries do not wait behind a thousand replays.
REPLAY_CHUNK = 50
#: A client that has missed more must fetch the state instead.
REPLAY_MAX = 5000
#: How long a new client waits for the reader's first result.
CONNECT_TIMEOUT_S = 2.0
#: How often a client without a place, because the broker is away, tries to get one.
PLACE_RETRY_S = 1.0


class Follower:
    """A client, created by `Hub.follow` and read by one task with `next`, in the hub's event loop.

    Entries come in order, each once. A gap is announced by a `resync_required` in its place. While
    the task waits in `next` and the client has a `writer`, the hub writes to it without the task.
    """

    def __init__(
        self,
        hub: "Hub",
        cursor: str | None,
        view: View,
        caller: ApiCaller = ANYBODY,
        name: str = "",
    ) -> None:
        self.wake = asyncio.Event()
        self.gone = False  #: set when the client hangs up
        self.caller = caller
        self.name = name  #: address of the client
        self.dismissed = False  #: its access has ended
        self.evicted = False  #: set when the client reads nothing
        self.on_dismissal: Callable[[], object] = self.wake.set
        self.writer: FrameWriter | None = None
        self._hub = hub
        self._raw_cursor = cursor
        self._cursor = parse_cursor(cursor) if cursor is not None else None
        self._view = view
        self._number: int | None = None  #: of the next entry; None before it has a place
        self._passed: Place = self._cursor.place if self._cursor else BEGINNING
        self._replaying = False
        self._outages = hub.outages
        self._epoch_changes = hub.epoch_changes
        self._outage_notified = False
        self._waiting = False  #: the task waits for entries, and has sent all before
        #: Sent before any entry, and never displaced by one.
        self._notices: list[BufferEntry] = []

    @property
    def lag(self) -> int:
        """The number of entries that wait for the client."""
        return 0 if self._number is None else self._hub.log.end - self._number

    @property
    def position(self) -> str | None:
        """The cursor of the client's place; None before it has one."""
        if self._number is None:
            return None
        place = f"{self._passed[0]}-{self._passed[1]}"
        return f"{self._hub.epoch}.{place}" if self._hub.epoch else place

    async def next(self, timeout_s: float | None = None) -> BusBatch | None:
        """The next entries; an empty batch after `timeout_s`; None when the client must leave."""
        loop = asyncio.get_running_loop()
        until = float("inf") if timeout_s is None else loop.time() + timeout_s
        while not self._finished():
            self.wake.clear()
            await self.reconcile()
            if self._finished():
                break
            if batch := self._next_batch():
                return batch
            if self.lag:  # no entry of this batch was selected
                await asyncio.sleep(0)
                continue
            retry_at = until if self._number is not None else loop.time() + PLACE_RETRY_S
            await self._wait(min(until, retry_at))
            if loop.time() >= until and not self.wake.is_set():
                return BusBatch()
        return None

    async def _wait(self, until: float) -> None:
        """Wait to be woken, at most until this time of the loop."""
        self._waiting = self._number is not None
        try:
            async with asyncio.timeout_at(None if until == float("inf") else until):
                await self.wake.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting = False

    def push(self) -> bool:
        """Write the next batch if the client waits for it, otherwise wake its task.

        True when more is to be written.
        """
        writer = self.writer
        if writer is None or not self._waiting or self._finished() or not writer.ready:
            self.wake.set()
            return False
        for frames in self._next_batch(WRITE_MAX).frames:
            writer.write(frames)
        return self.lag > 0

    def dismiss(self) -> None:
        """End the client's access at once; waiting entries are not sent."""
        self.dismissed = True
        self.on_dismissal()

    def _finished(self) -> bool:
        return self._hub.closing or self.gone or self.dismissed

    async def reconcile(self) -> None:
        """Find a place for the client, if it has none and the broker answers."""
        if self._number is not None:
            if self._replaying:
                await self._hub.replay_turn()
            return
        hub = self._hub
        if not (hub.up or hub.away or self._outage_notified):
            await self._connected()
        if not hub.up:
            self._notify_outage()
        elif self._raw_cursor is None:
            # A client that came during an outage must fetch the state of now.
            self._jump(Resync.BUS_UNAVAILABLE if self._outage_notified else None)
        elif self._cursor is None:
            self._jump(Resync.INVALID)
        else:
            await self._resume(self._cursor)

    async def _connected(self) -> None:
        """Wait for the reader's first result, at most CONNECT_TIMEOUT_S."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                while not (self._hub.up or self._hub.away or self._finished()):
                    self.wake.clear()
                    await self.wake.wait()

    async def _resume(self, cursor: Cursor) -> None:
        end = self._hub.log.end  # later entries do not count as missed
        try:
            window = await self._hub.window()
        except FleetError:
            self._notify_outage()
            return
        reason = verdict(cursor, window)
        if reason is None:
            log = self._hub.log
            number = log.after(cursor.place)
            if number is not None and end - number <= REPLAY_MAX:
                self._number, self._replaying = number, True
                self._outages, self._epoch_changes = self._hub.outages, self._hub.epoch_changes
                return
            reason = Resync.GAP_TOO_LARGE
        self._jump(reason)

    def _next_batch(self, count: int = CHUNK) -> BusBatch:
        """Take the waiting notices, or the selected entries of the next `count`."""
        hub = self._hub
        if self._number is not None:
            if self._outages != hub.outages:
                self._outages = hub.outages
                self._notify(Resync.BUS_UNAVAILABLE)
            limit = hub.log.end if self._replaying else hub.client_queue
            if self._epoch_changes != hub.epoch_changes:
                self._jump(Resync.EPOCH_CHANGED)
            elif self._number < hub.log.start or self.lag > limit:
                self._jump(Resync.SLOW_CONSUMER)
        if self._notices or self._number is None:
            batch, self._notices = BusBatch(self._notices), []
        else:
            batch = self._advance(self._number, count)
        hub.delivered += len(batch.entries)
        return batch

    def _advance(self, number: int, count: int) -> BusBatch:
        """Take the selected entries of `count` from `number` on, and move behind them."""
        batch = BusBatch()
        if number < self._hub.log.end:
            batch = self._view.batch(number, REPLAY_CHUNK if self._replaying else count)
            self._number = batch.end
            if batch.first <= self._passed:  # the client was ahead of our reader
                batch = batch.after(self._passed)
            self._passed = max(self._passed, batch.last)
        if self._number == self._hub.log.end:
            self._replaying = False
        return batch

    def _jump(self, reason: Resync | None) -> None:
        """Move to the newest entry; a notice with `reason` stands for the skipped entries."""
        hub = self._hub
        self._number, self._passed = hub.log.end, hub.head
        self._replaying = False
        self._outages, self._epoch_changes = hub.outages, hub.epoch_changes
        if reason is not None:
            self._notify(reason)

    def _notify_outage(self) -> None:
        if not self._outage_notified:
            self._outage_notified = True
            self._notify(Resync.BUS_UNAVAILABLE)

    def _notify(self, reason: Resync) -> None:
        """Queue a `resync_required`. Its id is the client's place, so a reconnect resumes there."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        notice = BusEvent(
            id=f"{self._passed[0]}-{self._passed[1]}",
            epoch=self._hub.epoch,
            type="resync_required",
            time=now,
            fields={"reason": str(reason)},
        )
        self._hub.resyncs[str(reason)] += 1
        self._notices.append(render(notice, cursor=self._number is not None))
