"""One client of the bus: its place in the hub's log, and why it may have to fetch the state."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fleet.api.auth.access import ANYBODY, ApiCaller
from fleet.api.bus.buffer import BufferEntry, render
from fleet.api.bus.cursor import BEGINNING, Cursor, Place, Resync, parse_cursor, verdict
from fleet.errors import FleetError
from fleet.ledger.bus import BusEvent

if TYPE_CHECKING:
    from fleet.api.bus.hub import Hub

#: Entries handed to a client at once; between two such chunks the other clients have their turn.
CHUNK = 200
#: The same for missed entries: live ones do not wait behind a thousand replays.
REPLAY_CHUNK = 50
#: A client that has missed more fetches the state instead.
REPLAY_MAX = 5000
#: How long a new client waits for the reader to say whether there is a bus.
CONNECT_S = 2.0
#: How often a client that has no place yet, because the broker is away, looks for one.
UNPLACED_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The entries a client asked for; an empty set means any."""

    agents: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        """True when no entry is left out."""
        return not (self.agents or self.types or self.sessions)

    def has(self, event: BusEvent) -> bool:
        """True when the client asked for this entry."""
        fields = event.fields
        return (
            (not self.agents or fields.get("agent") in self.agents)
            and (not self.types or event.type in self.types)
            and (not self.sessions or fields.get("session") in self.sessions)
        )


class Follower:
    """Made by `Hub.follow`; read by one task with `next`, in the hub's event loop.

    Entries come in order, each once, none left out: or a `resync_required` comes in their stead.
    """

    def __init__(
        self,
        hub: "Hub",
        cursor: str | None,
        wanted: Wanted,
        caller: ApiCaller = ANYBODY,
        name: str = "",
    ) -> None:
        self.wake = asyncio.Event()
        self.gone = False  #: set by whoever sees the client hang up
        self.caller = caller
        self.name = name  #: where it is connected from
        self.dismissed = False  #: it may see nothing any more
        self.evicted = False  #: set by whoever sees that it takes nothing
        self.on_dismissal: Callable[[], object] = self.wake.set
        self._hub = hub
        self._asked = cursor
        self._cursor = parse_cursor(cursor) if cursor is not None else None
        self._wanted = wanted
        self._number: int | None = None  #: of the next entry; None while there is no place yet
        self._passed: Place = self._cursor.place if self._cursor else BEGINNING
        self._replaying = False
        self._outages = hub.outages
        self._lives = hub.lives
        self._away_told = False
        #: The reserved slot: looked at before any entry, and no entry can fill it.
        self._notices: list[BufferEntry] = []

    @property
    def lag(self) -> int:
        """How many entries are before it."""
        return 0 if self._number is None else self._hub.log.end - self._number

    @property
    def position(self) -> str | None:
        """The cursor behind which the next entry comes; None while there is no place yet."""
        if self._number is None:
            return None
        place = f"{self._passed[0]}-{self._passed[1]}"
        return f"{self._hub.epoch}.{place}" if self._hub.epoch else place

    async def next(self, timeout_s: float) -> list[BufferEntry] | None:
        """What to send: entries, nothing when the time is over, None when the client must leave."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while not self._over():
            self.wake.clear()
            await self.reconcile()
            if self._over():
                break
            if batch := self._take():
                return batch
            if self.lag:  # nothing of this chunk was wanted
                await asyncio.sleep(0)
                continue
            look_again = until if self._number is not None else loop.time() + UNPLACED_S
            try:
                async with asyncio.timeout_at(min(until, look_again)):
                    await self.wake.wait()
            except TimeoutError:
                if loop.time() >= until:
                    return []
        return None

    def evict(self) -> None:
        """From now on not one entry more, not even those that wait."""
        self.dismissed = True
        self.on_dismissal()

    def _over(self) -> bool:
        return self._hub.closing or self.gone or self.dismissed

    async def reconcile(self) -> None:
        """Find the client's place, if it has none and the broker answers."""
        if self._number is not None:
            if self._replaying:
                await self._hub.replay_turn()
            return
        hub = self._hub
        if not (hub.up or hub.away or self._away_told):
            await self._connected()
        if not hub.up:
            self._tell_away()
        elif self._asked is None:
            # Who came while the broker was away must fetch what happened until now.
            self._jump(Resync.BUS_UNAVAILABLE if self._away_told else None)
        elif self._cursor is None:
            self._jump(Resync.INVALID)
        else:
            await self._resume(self._cursor)

    async def _connected(self) -> None:
        """Wait until the reader has met the broker or failed to, or CONNECT_S."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                while not (self._hub.up or self._hub.away or self._over()):
                    self.wake.clear()
                    await self.wake.wait()

    async def _resume(self, cursor: Cursor) -> None:
        end = self._hub.log.end  # what comes while it waits is not what it missed
        try:
            window = await self._hub.window()
        except FleetError:
            self._tell_away()
            return
        reason = verdict(cursor, window)
        if reason is None:
            log = self._hub.log
            number = log.after(cursor.place)
            if number is not None and end - number <= REPLAY_MAX:
                self._number, self._replaying = number, True
                self._outages, self._lives = self._hub.outages, self._hub.lives
                return
            reason = Resync.GAP_TOO_LARGE
        self._jump(reason)

    def _take(self) -> list[BufferEntry]:
        """Notices if there are any, else the wanted ones of the next chunk; moves the place."""
        hub = self._hub
        if self._number is not None:
            if self._outages != hub.outages:
                self._outages = hub.outages
                self._notify(Resync.BUS_UNAVAILABLE)
            limit = hub.log.end if self._replaying else hub.client_queue
            if self._lives != hub.lives:
                self._jump(Resync.EPOCH_CHANGED)
            elif self._number < hub.log.start or self.lag > limit:
                self._jump(Resync.SLOW_CONSUMER)
        if self._notices or self._number is None:
            notices, self._notices = self._notices, []
            hub.delivered += len(notices)
            return notices
        entries = hub.log.slice(self._number, REPLAY_CHUNK if self._replaying else CHUNK)
        self._number += len(entries)
        if entries and entries[0].place <= self._passed:  # the client was ahead of our reader
            entries = [entry for entry in entries if entry.place > self._passed]
        if entries:
            self._passed = entries[-1].place
        if self._number == hub.log.end:
            self._replaying = False
        if not self._wanted.everything:
            entries = [entry for entry in entries if self._wanted.has(entry.event)]
        hub.delivered += len(entries)
        return entries

    def _jump(self, reason: Resync | None) -> None:
        """Go on from the newest entry; whatever lies between is covered by the notice."""
        hub = self._hub
        self._number, self._passed = hub.log.end, hub.head
        self._replaying = False
        self._outages, self._lives = hub.outages, hub.lives
        if reason is not None:
            self._notify(reason)

    def _tell_away(self) -> None:
        if not self._away_told:
            self._away_told = True
            self._notify(Resync.BUS_UNAVAILABLE)

    def _notify(self, reason: Resync) -> None:
        """Its id is the place after which entries follow: a reconnect goes on from there."""
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
