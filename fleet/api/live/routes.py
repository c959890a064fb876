"""`GET /dispatches/{id}/stream`: what a turn says as server-sent events, and then its outcome.

`token`    a piece of text: append it
`reset`    a step begins anew: forget what you have of it and of later ones
`resync`   pieces are missing: forget everything; what is still kept follows
`outcome`  how it ended, with the whole answer; then the stream ends
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from fleet.api.auth.access import caller_of
from fleet.api.bus.routes import HEARTBEAT_S, SSE_HEADERS
from fleet.api.live.hub import Channel, LiveTextHub, event, outcome_of
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.ledger import State
from fleet.ledger.operations import Unknown
from fleet.runtime import Runtime
from fleet.store import keys
from fleet.store.connection import reachable
from fleet.turn.live_text import BEGINNING, Chunk, parse_position

#: A client that takes nothing for so long is let go; it comes back with its last event id.
SEND_S = 5.0
#: Pieces and, about, bytes handed over at once. Between two such chunks the others have their turn,
#: and a slow client need take no more than one within SEND_S.
CHUNK, CHUNK_BYTES = 200, 32 * 1024


_log = logging.getLogger(__name__)


class LiveTextListener:
    """One client's place in a channel."""

    def __init__(self, channel: Channel, cursor: str | None) -> None:
        self._channel = channel
        self._next = 0  #: index of the next piece
        #: Behind what the client has; None where nobody knows what that is.
        self._place = BEGINNING if cursor is None else parse_position(cursor)
        self._placed = cursor is None

    def take(self) -> bytes:
        """What to send next; empty when there is nothing new."""
        pieces = self._channel.pieces
        if not self._placed:
            if not (self._channel.complete and pieces):
                return b""
            self._placed = True
            self._find(pieces)
        parts: list[bytes] = []
        size = 0
        for piece in pieces[self._next : self._next + CHUNK]:
            if size > CHUNK_BYTES:
                break
            if self._place is None or not piece.follows(self._place):
                reason = "invalid_last_event_id" if self._place is None else "trimmed"
                parts.append(event("resync", {"reason": reason}))
            parts.append(self._channel.wire[self._next])
            size += len(parts[-1])
            self._next += 1
            self._place = piece.place
        return b"".join(parts)

    @property
    def finished(self) -> bool:
        """True when everything was taken and the dispatch has ended."""
        return self._channel.outcome is not None and self._next >= len(self._channel.pieces)

    def _find(self, pieces: Sequence[Chunk]) -> None:
        """Go on behind the piece that the client had last, or start anew."""
        for index, piece in enumerate(pieces):
            if piece.place == self._place:
                self._next = index + 1
                return
        if self._place is not None and not pieces[0].follows(self._place):
            self._place = None


class LiveTextRoute:
    """The ASGI application that lets a client listen."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads, listening: LiveTextHub) -> None:
        self._runtime, self._reads = runtime, reads
        self._listening = listening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Listen to one dispatch until it has ended. Raises Unknown, BrokerUnavailable and Busy."""
        dispatch_id = str(scope["path_params"]["dispatch_id"])
        agent, state = await self._reads.run(lambda: self._find(dispatch_id))
        caller = caller_of(scope)
        caller.rights.need_read(agent)
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
        news = asyncio.Event()
        channel = self._listening.join(dispatch_id, news)
        watcher = asyncio.create_task(_until_gone(receive, news))
        try:
            await send(start)
            listener = LiveTextListener(channel, cursor or None)

            def goes_on() -> bool:
                listens = self._listening.access.holds(caller) and not watcher.done()
                return listens and not self._listening.closing

            await _relay(listener, channel, news, goes_on, send)
        except TimeoutError:
            _log.warning("A listener of %s is cut off: it reads nothing.", dispatch_id)
        finally:
            self._listening.leave(channel, news)
            watcher.cancel()

    def _find(self, dispatch_id: str) -> tuple[str, str]:
        """Its agent and state."""
        with reachable():
            client = self._runtime.store.client
            agent, state = client.hmget(keys.dispatch(dispatch_id), "agent", "state")
        if not (agent and state):
            raise Unknown("There is no dispatch of this id; `GET /dispatches` lists them.")
        return str(agent), str(state)


async def _relay(
    listener: LiveTextListener,
    channel: Channel,
    news: asyncio.Event,
    goes_on: Callable[[], bool],
    send: Send,
) -> None:
    """Hand over what is said until the end, or until it does not go on."""
    body = b": listening\n\n"
    while goes_on():
        await _hand_over(send, body, more=True)
        news.clear()
        body = listener.take()
        if body:
            continue
        if listener.finished and goes_on():
            await _hand_over(send, channel.outcome or b"", more=False)
            return
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await news.wait()
            body = listener.take()
        except TimeoutError:
            body = b": still here\n\n"
    await _hand_over(send, b"", more=False)


async def _hand_over(send: Send, body: bytes, *, more: bool) -> None:
    """Raises TimeoutError when the client takes nothing for SEND_S."""
    async with asyncio.timeout(SEND_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _until_gone(receive: Receive, wake: asyncio.Event) -> None:
    """Until the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    wake.set()
