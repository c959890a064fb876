"""`GET /dispatches/{id}/stream`: the live text of a turn as server-sent events, then its outcome.

`token`    a piece of text: append it
`reset`    a step begins anew: drop its text and the text of later steps
`resync`   text is missing: drop everything; the stored text follows
`outcome`  the ended dispatch with its whole answer; then the stream ends
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from fleet.api.auth.access import caller_of
from fleet.api.auth.visible import find_id, find_readable
from fleet.api.bus.routes import HEARTBEAT_S, SSE_HEADERS
from fleet.api.live.hub import Channel, LiveTextHub, event, outcome_of
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import check_names
from fleet.ledger import State
from fleet.runtime import Runtime
from fleet.turn.live_text import BEGINNING, Chunk, parse_position

#: A client that reads nothing for this long is cut off; it can resume with its last event id.
SEND_TIMEOUT_S = 5.0
#: The size of one send in chunks and, about, in bytes. Other clients are served between two sends.
#: A slow client has SEND_TIMEOUT_S for each.
CHUNK, CHUNK_BYTES = 200, 32 * 1024


_log = logging.getLogger(__name__)


class LiveTextListener:
    """One client's position in a channel."""

    def __init__(self, channel: Channel, cursor: str | None) -> None:
        self._channel = channel
        self._next = 0  #: index of the next chunk
        #: The client's last chunk; None where its cursor is unknown.
        self._place = BEGINNING if cursor is None else parse_position(cursor)
        self._placed = cursor is None

    def next_batch(self) -> bytes:
        """The next bytes to send; empty when there is nothing new."""
        chunks = self._channel.chunks
        if not self._placed:
            if not (self._channel.complete and chunks):
                return b""
            self._placed = True
            self._find(chunks)
        parts: list[bytes] = []
        size = 0
        for chunk in chunks[self._next : self._next + CHUNK]:
            if size > CHUNK_BYTES:
                break
            if self._place is None or not chunk.follows(self._place):
                reason = "invalid_last_event_id" if self._place is None else "trimmed"
                parts.append(event("resync", {"reason": reason}))
            parts.append(self._channel.wire[self._next])
            size += len(parts[-1])
            self._next += 1
            self._place = chunk.place
        return b"".join(parts)

    @property
    def finished(self) -> bool:
        """True when the dispatch has ended and all its text was sent."""
        return self._channel.outcome is not None and self._next >= len(self._channel.chunks)

    def _find(self, chunks: Sequence[Chunk]) -> None:
        """Resume after the client's last chunk, or start anew."""
        for index, chunk in enumerate(chunks):
            if chunk.place == self._place:
                self._next = index + 1
                return
        if self._place is not None and not chunks[0].follows(self._place):
            self._place = None


class LiveTextRoute:
    """The ASGI application behind the route."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads, hub: LiveTextHub) -> None:
        self._runtime, self._reads = runtime, reads
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream a dispatch until it has ended. Raises Unknown, BrokerUnavailable, ThreadsBusy."""
        check_names(QueryParams(scope["query_string"]), "last-event-id")
        given = str(scope["path_params"]["dispatch_id"])
        caller, store = caller_of(scope), self._runtime.store

        def find() -> tuple[str, str]:
            found = find_id(store, caller, given)
            return found, find_readable(store, caller, found)[1]

        dispatch_id, state = await self._reads.run(find)
        start = {"type": "http.response.start", "status": HTTPStatus.OK, "headers": SSE_HEADERS}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body"})
            return
        if State(state).terminal:
            outcome = await self._reads.run(lambda: outcome_of(self._runtime.store, dispatch_id))
            await send(start)
            await send({"type": "http.response.body", "body": event("outcome", outcome)})
            return
        # A browser that reconnects keeps the URL and adds the header: the header is newer.
        query = QueryParams(scope["query_string"])
        cursor = Headers(scope=scope).get("last-event-id") or query.get("last-event-id")
        wake = asyncio.Event()
        channel = self._hub.join(dispatch_id, wake)
        watcher = asyncio.create_task(_watch_disconnect(receive, wake))
        try:
            await send(start)
            listener = LiveTextListener(channel, cursor or None)

            def connected() -> bool:
                admitted = self._hub.access.admits(caller) and not watcher.done()
                return admitted and not self._hub.closing

            await _relay(listener, channel, wake, connected, send)
        except TimeoutError:
            _log.warning("A listener of %s is cut off: it reads nothing.", dispatch_id)
        finally:
            self._hub.leave(channel, wake)
            watcher.cancel()


async def _relay(
    listener: LiveTextListener,
    channel: Channel,
    wake: asyncio.Event,
    connected: Callable[[], bool],
    send: Send,
) -> None:
    """Send the listener's text and its outcome, as long as `connected`."""
    body = b": listening\n\n"
    while connected():
        await _send(send, body, more=True)
        wake.clear()
        body = listener.next_batch()
        if body:
            continue
        if listener.finished and connected():
            await _send(send, channel.outcome or b"", more=False)
            return
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await wake.wait()
            body = listener.next_batch()
        except TimeoutError:
            body = b": still here\n\n"
    await _send(send, b"", more=False)


async def _send(send: Send, body: bytes, *, more: bool) -> None:
    """Send a part of the body. Raises TimeoutError after SEND_TIMEOUT_S."""
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _watch_disconnect(receive: Receive, wake: asyncio.Event) -> None:
    """Set `wake` when the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    wake.set()
