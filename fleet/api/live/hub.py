"""Listening to running turns in one API process: one look at the store serves every listener.

Each dispatch that is listened to has a channel with all that was said since its first listener
came, rendered once. A listener is a place in that, so a slow one costs nothing and delays nobody.
The store is asked for all channels together, and only while there are any.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from fleet.api.auth.access import Access
from fleet.api.request.bounded_threads import BoundedThreads, ThreadsBusy
from fleet.errors import FleetError
from fleet.ledger import State, views
from fleet.store import Store
from fleet.turn import live_text
from fleet.turn.live_text import BEGINNING, CHUNK, Chunk, Kind, Message, TextPosition

#: How often the store is asked; with `speech.GATHER_S` that is what a word is late.
POLL_INTERVAL_S = 0.05
#: The same while the store does not answer.
RETRY_S = 1.0
#: Dispatches that are listened to at once; together they are one round trip.
CHANNELS_MAX = 256
LISTENERS_MAX = 1000

#: What the ledger no longer holds can only have been thrown away.
_FORGOTTEN = {"state": str(State.DROPPED), "error": "the ledger no longer holds it"}
#: Not for who listens: what was sent in, and each step by itself.
_LEFT_OUT = ("event", "steps", "waiting_for")

_log = logging.getLogger(__name__)


class Channel:
    """What one dispatch says. Everything here runs in one event loop."""

    def __init__(self, dispatch_id: str) -> None:
        self.dispatch_id = dispatch_id
        self.pieces: list[Chunk] = []
        self.wire: list[bytes] = []  #: the same, as server-sent events
        self.complete = False  #: everything that was kept at the beginning has been read
        self.outcome: bytes | None = None
        self.listeners: set[asyncio.Event] = set()

    @property
    def after(self) -> TextPosition:
        """Where the next piece is looked for."""
        return self.pieces[-1].place if self.pieces else BEGINNING

    def hear(self, pieces: list[Chunk], outcome: dict[str, Any] | None) -> None:
        """Take in what is new, and wake the listeners if anything is."""
        self.complete = self.complete or len(pieces) < CHUNK
        self.pieces += pieces
        self.wire += [_render_piece(piece) for piece in pieces]
        if outcome is not None:
            self.outcome = event("outcome", outcome)
        if pieces or outcome is not None:
            self.wake()

    def wake(self) -> None:
        """Let every listener look."""
        for listener in self.listeners:
            listener.set()


class LiveTextHub:
    """The channels of one API process. Everything here runs in its event loop."""

    def __init__(self, store: Callable[[], Store], access: Access) -> None:
        self.access = access
        self.closing = False
        self.listeners = 0
        self._access_seen = access.newest
        self._store = store
        self._channels: dict[str, Channel] = {}
        # Of its own: nobody else's request waits behind these looks, nor they behind any.
        self._lane = BoundedThreads("listening", threads=1, backlog=1)
        self._looking: asyncio.Task[None] | None = None

    def join(self, dispatch_id: str, wake: asyncio.Event) -> Channel:
        """The channel of a dispatch, which sets `wake` when there is news. Raises Busy."""
        channel = self._channels.get(dispatch_id)
        full = channel is None and len(self._channels) >= CHANNELS_MAX
        if full or self.listeners >= LISTENERS_MAX:
            raise ThreadsBusy(
                "Too many listen already: try again, or wait for the outcome on the bus."
            )
        if channel is None:
            channel = self._channels[dispatch_id] = Channel(dispatch_id)
        channel.listeners.add(wake)
        self.listeners += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        return channel

    def leave(self, channel: Channel, wake: asyncio.Event) -> None:
        """Forget a listener, and with the last one the channel."""
        channel.listeners.discard(wake)
        self.listeners -= 1
        if not channel.listeners:
            self._channels.pop(channel.dispatch_id, None)

    def close(self) -> None:
        """Let every listener go; safe to repeat."""
        self.closing = True
        self._wake()

    def _wake(self) -> None:
        for channel in self._channels.values():
            channel.wake()

    async def _look(self) -> None:
        down = False
        while not self.closing:
            open_ones = [c for c in self._channels.values() if c.outcome is None]
            if not self._channels:
                break
            try:
                await self._hear(open_ones)
                down = False
            except FleetError as error:
                if not down:
                    _log.warning("What turns say cannot be read now: %s", error)
                down = True
            except Exception:  # noqa: BLE001 - logged; one that ends would silence every turn
                _log.exception("Reading what turns say failed; it goes on.")
                down = True
            await asyncio.sleep(RETRY_S if down else POLL_INTERVAL_S)
        self._looking = None

    async def _hear(self, channels: list[Channel]) -> None:
        if not channels:
            return
        after = {channel.dispatch_id: channel.after for channel in channels}
        heard, outcomes = await self._lane.run(partial(_look_up, self._store, after))
        # Looked at later than the pieces: who may not listen any more, does not hear these.
        await self.access.current()
        if self.access.newest != self._access_seen:
            self._access_seen = self.access.newest
            self._wake()
        for channel in channels:
            news = heard[channel.dispatch_id]
            channel.hear(list(news.pieces), outcomes.get(channel.dispatch_id))


def _look_up(
    open_store: Callable[[], Store], after: dict[str, TextPosition]
) -> tuple[dict[str, Message], dict[str, dict[str, Any]]]:
    """What is new, and the outcomes of those that have ended and said everything."""
    store = open_store()
    heard = live_text.subscribe(store, after)
    outcomes = {
        dispatch_id: outcome_of(store, dispatch_id)
        for dispatch_id, news in heard.items()
        if (news.state is None or State(news.state).terminal) and len(news.pieces) < CHUNK
    }
    return heard, outcomes


def outcome_of(store: Store, dispatch_id: str) -> dict[str, Any]:
    """How a dispatch has ended, with its answer."""
    record = views.get(store, dispatch_id, content=True)
    record = record or {"dispatch_id": dispatch_id, **_FORGOTTEN}
    return {name: value for name, value in record.items() if name not in _LEFT_OUT}


def event(name: str, data: dict[str, Any], cursor: TextPosition | None = None) -> bytes:
    """One server-sent event."""
    text = json.dumps(data, separators=(",", ":"))
    place = "" if cursor is None else f"id: {cursor}\n"
    return f"{place}event: {name}\ndata: {text}\n\n".encode()


def _render_piece(piece: Chunk) -> bytes:
    where: dict[str, Any] = {"attempt": piece.place.attempt, "step": piece.step}
    if piece.kind is Kind.TEXT:
        data = {**where, "offset": piece.offset, "text": piece.text}
        return event("token", data, piece.place)
    return event("reset", {**where, "reason": str(piece.kind)}, piece.place)
