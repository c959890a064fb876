"""Live text of running turns in one API process: one query of the store serves all listeners.

Each dispatch with listeners has a channel: its text since the first listener came, rendered once. A
listener is a position in the channel, so a slow listener costs nothing and delays nobody. One query
reads all channels, and only while there are any.
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

#: How often the store is queried; with `live_text.GATHER_S` the delay of a word.
POLL_INTERVAL_S = 0.05
#: The same while the store is down.
RETRY_DELAY_S = 1.0
#: Dispatches with listeners; all of them are one round trip.
CHANNELS_MAX = 256
LISTENERS_MAX = 1000

#: A dispatch that the ledger no longer holds has been dropped.
_FORGOTTEN = {"state": str(State.DROPPED), "error": "the ledger no longer holds it"}
#: Fields of a record that listeners do not get.
_OMITTED = ("event", "failures", "steps", "waiting_for")

_log = logging.getLogger(__name__)


class Channel:
    """The live text of one dispatch. Used in one event loop."""

    def __init__(self, dispatch_id: str) -> None:
        self.dispatch_id = dispatch_id
        self.chunks: list[Chunk] = []
        self.wire: list[bytes] = []  #: the same, as server-sent events
        self.complete = False  #: all text stored before the first query has been read
        self.outcome: bytes | None = None
        self.listeners: set[asyncio.Event] = set()

    @property
    def after(self) -> TextPosition:
        """The position after which the next chunk is read."""
        return self.chunks[-1].place if self.chunks else BEGINNING

    def append(self, chunks: list[Chunk], outcome: dict[str, Any] | None) -> None:
        """Append new chunks and the outcome, and wake the listeners if there are any."""
        self.complete = self.complete or len(chunks) < CHUNK
        self.chunks += chunks
        self.wire += [_render_chunk(chunk) for chunk in chunks]
        if outcome is not None:
            self.outcome = event("outcome", outcome)
        if chunks or outcome is not None:
            self.wake()

    def wake(self) -> None:
        """Wake every listener."""
        for listener in self.listeners:
            listener.set()


class LiveTextHub:
    """The channels of one API process. Used in one event loop."""

    def __init__(self, store: Callable[[], Store], access: Access) -> None:
        self.access = access
        self.closing = False
        self.listeners = 0
        self._access_seen = access.newest
        self._store = store
        self._channels: dict[str, Channel] = {}
        # A thread of its own: queries and requests do not wait for each other.
        self._threads = BoundedThreads("listening", threads=1, backlog=1)
        self._polling: asyncio.Task[None] | None = None

    def join(self, dispatch_id: str, wake: asyncio.Event) -> Channel:
        """Listen to a dispatch; its channel sets `wake` on news. Raises ThreadsBusy."""
        channel = self._channels.get(dispatch_id)
        full = channel is None and len(self._channels) >= CHANNELS_MAX
        if full or self.listeners >= LISTENERS_MAX:
            raise ThreadsBusy(
                "Too many clients listen: try again, or wait for the outcome on the bus."
            )
        if channel is None:
            channel = self._channels[dispatch_id] = Channel(dispatch_id)
        channel.listeners.add(wake)
        self.listeners += 1
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll())
        return channel

    def leave(self, channel: Channel, wake: asyncio.Event) -> None:
        """Remove a listener, and with the last listener the channel."""
        channel.listeners.discard(wake)
        self.listeners -= 1
        if not channel.listeners:
            self._channels.pop(channel.dispatch_id, None)

    def close(self) -> None:
        """Disconnect every listener; safe to repeat."""
        self.closing = True
        self._wake()

    def _wake(self) -> None:
        for channel in self._channels.values():
            channel.wake()

    async def _poll(self) -> None:
        down = False
        while not self.closing:
            waiting = [c for c in self._channels.values() if c.outcome is None]
            if not self._channels:
                break
            try:
                await self._poll_channels(waiting)
                down = False
            except FleetError as error:
                if not down:
                    _log.warning("The live text of turns cannot be read now: %s", error)
                down = True
            except Exception:  # noqa: BLE001 - logged; the loop must survive every fault
                _log.exception("Reading the live text of turns failed; it is tried again.")
                down = True
            await asyncio.sleep(RETRY_DELAY_S if down else POLL_INTERVAL_S)
        self._polling = None

    async def _poll_channels(self, channels: list[Channel]) -> None:
        if not channels:
            return
        after = {channel.dispatch_id: channel.after for channel in channels}
        messages, outcomes = await self._threads.run(partial(_query, self._store, after))
        # Checked after the chunks were read: a revoked listener does not get them.
        await self.access.refresh()
        if self.access.newest != self._access_seen:
            self._access_seen = self.access.newest
            self._wake()
        for channel in channels:
            news = messages[channel.dispatch_id]
            channel.append(list(news.pieces), outcomes.get(channel.dispatch_id))


def _query(
    open_store: Callable[[], Store], after: dict[str, TextPosition]
) -> tuple[dict[str, Message], dict[str, dict[str, Any]]]:
    """New chunks, and the outcomes of the dispatches that have ended and whose text is read."""
    store = open_store()
    messages = live_text.subscribe(store, after)
    outcomes = {
        dispatch_id: outcome_of(store, dispatch_id)
        for dispatch_id, news in messages.items()
        if (news.state is None or State(news.state).terminal) and len(news.pieces) < CHUNK
    }
    return messages, outcomes


def outcome_of(store: Store, dispatch_id: str) -> dict[str, Any]:
    """The record of an ended dispatch, with its answer."""
    record = views.get(store, dispatch_id, content=True)
    record = record or {"dispatch_id": dispatch_id, **_FORGOTTEN}
    return {name: value for name, value in record.items() if name not in _OMITTED}


def event(name: str, data: dict[str, Any], cursor: TextPosition | None = None) -> bytes:
    """Render a server-sent event."""
    text = json.dumps(data, separators=(",", ":"))
    place = "" if cursor is None else f"id: {cursor}\n"
    return f"{place}event: {name}\ndata: {text}\n\n".encode()


def _render_chunk(chunk: Chunk) -> bytes:
    where: dict[str, Any] = {"attempt": chunk.place.attempt, "step": chunk.step}
    if chunk.kind is Kind.TEXT:
        data = {**where, "offset": chunk.offset, "text": chunk.text}
        return event("token", data, chunk.place)
    return event("reset", {**where, "reason": str(chunk.kind)}, chunk.place)
