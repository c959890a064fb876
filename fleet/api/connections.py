"""The connections of the API: their number is bounded, and none waits for its headers for ever.

The problem: a connection costs a file before anything is known of its client. A client that opens
many and never ends its headers would take them all, and the API, `/livez` too, would answer nobody.

So a connection on which no request has begun gives its place to a new one, the oldest first, as
soon as the places in all, or those of one address, are taken; and it is closed after HEADER_S
anyway. A new connection is refused only while requests occupy every place.
"""

import asyncio
import logging
import resource
import time
from collections import Counter, OrderedDict, defaultdict
from functools import partial
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from fleet.api.bus.frames import EXTENSION
from fleet.config.api import ApiConfig

#: From the connect, or the last response, to the end of a request's headers.
HEADER_S = 10.0
SWEEP_INTERVAL_S = 1.0
#: The largest headers, in bytes; an unfinished request occupies no more memory.
HEADERS_MAX = 32 * 1024
#: Files of the process that are no connections of clients.
FILES_RESERVED = 128

_CLOSE = b"x-content-type-options: nosniff\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n" + _CLOSE
_BAD = b"HTTP/1.1 400 Bad Request\r\n" + _CLOSE

logger = logging.getLogger(__name__)


class Connections:
    """The open connections, HTTP and WebSocket; for the thread of the event loop."""

    def __init__(self, limits: ApiConfig) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = limits.connections_max
        if files != resource.RLIM_INFINITY:
            room = max(1, min(room, files - FILES_RESERVED))
        self._room = room
        self._room_of_address = min(room, limits.connections_per_address)
        self._address: dict[asyncio.Transport, str] = {}
        self._number: Counter[str] = Counter()  #: by address
        #: When each began to wait for headers, the oldest first; in all, and by address.
        self._waiting: OrderedDict[asyncio.Transport, float] = OrderedDict()
        self._waiting_of: defaultdict[str, OrderedDict[asyncio.Transport, None]]
        self._waiting_of = defaultdict(OrderedDict)

    def enter(self, transport: asyncio.Transport) -> bool:
        """Count a new connection; False when there is no place for it."""
        address = str((transport.get_extra_info("peername") or [""])[0])
        if self._number[address] >= self._room_of_address:
            if not self._make_room(self._waiting_of[address]):
                return self._refuse(address)
        elif len(self._address) >= self._room and not self._make_room(self._waiting):
            return self._refuse("all addresses")
        self._address[transport] = address
        self._number[address] += 1
        self.wait(transport)
        return True

    def wait(self, transport: asyncio.Transport) -> None:
        """Record that no request runs on a connection."""
        if transport in self._address and transport not in self._waiting:
            self._waiting[transport] = time.monotonic()
            self._waiting_of[self._address[transport]][transport] = None

    def begin(self, transport: asyncio.Transport) -> None:
        """Record that a request has begun on a connection."""
        if self._waiting.pop(transport, None) is not None:
            address = self._address[transport]
            del self._waiting_of[address][transport]
            if not self._waiting_of[address]:
                del self._waiting_of[address]

    def leave(self, transport: asyncio.Transport) -> None:
        """Forget a connection; one that is not known does no harm."""
        self.begin(transport)
        if (address := self._address.pop(transport, None)) is not None:
            self._number[address] -= 1
            if not self._number[address]:
                del self._number[address]

    async def sweep(self) -> None:
        """Close connections whose headers do not come, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            late = time.monotonic() - HEADER_S
            while self._waiting and next(iter(self._waiting.values())) < late:
                self._close(next(iter(self._waiting)))

    def _make_room(self, waiting: OrderedDict[asyncio.Transport, Any]) -> bool:
        if not waiting:
            return False
        self._close(next(iter(waiting)))
        return True

    def _close(self, transport: asyncio.Transport) -> None:
        self.leave(transport)
        transport.abort()

    def _refuse(self, whose: str) -> bool:
        logger.warning(
            "connections are refused: requests of %s occupy every place; see "
            "api.connections_max and api.connections_per_address",
            whose,
        )
        return False


class BoundedHttp(H11Protocol):
    """Uvicorn's protocol for one connection, which takes a place of `Connections`."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._places = connections
        self._admitted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, or answer 503."""
        self._admitted = self._places.enter(transport)
        if self._admitted:
            super().connection_made(transport)
        else:
            transport.write(_FULL)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Take in what the client sent."""
        if self._admitted:
            super().data_received(data)

    def handle_events(self) -> None:
        """Handle what the client sent; with a request, the connection no longer waits."""
        super().handle_events()
        if self._is_busy():
            self._places.begin(self.transport)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self.transport.write(_BAD)
        self.transport.close()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self._is_busy():
            self._places.wait(self.transport)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Leave the place to the WebSocket's protocol."""
        self._places.begin(self.transport)
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place."""
        if self._admitted:
            self._places.leave(self.transport)
            super().connection_lost(exc)

    def _is_busy(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete


class BoundedWebSocket(AutoWebSocketsProtocol):  # type: ignore[misc, valid-type]
    """Uvicorn's protocol for a WebSocket, which frees the place that it took over.

    It offers itself as the `FrameWriter` of its connection.
    """

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._places = connections

    def handle_connect(self, event: Any) -> None:
        """Begin the handshake; its application runs later."""
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][EXTENSION] = self

    @property
    def ready(self) -> bool:
        """True when the connection is open and its buffer has room."""
        return self.writable.is_set() and not self.transport.is_closing()

    def write(self, frames: bytes) -> None:
        """Write whole frames, whether there is room or not."""
        self.transport.write(frames)

    async def drain(self) -> None:
        """Wait until the buffer has room. Raises ClientDisconnected."""
        await self.writable.wait()
        if self.close_sent or not self.ready:
            raise ClientDisconnected

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place."""
        self._places.leave(self.transport)
        super().connection_lost(exc)


def bounded(connections: Connections) -> dict[str, Any]:
    """The options of uvicorn that bound its connections."""
    return {
        "http": partial(BoundedHttp, connections),
        "ws": partial(BoundedWebSocket, connections),
        "h11_max_incomplete_event_size": HEADERS_MAX,
    }
