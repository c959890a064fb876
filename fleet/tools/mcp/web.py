"""A tool server at an address: Streamable HTTP, with a bound on what one response may hold."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import httpx2
from mcp.client.streamable_http import streamable_http_client

from fleet.config.tools import ToolsConfig
from fleet.tools.mcp.program import MESSAGE_BYTES_MAX, Streams

#: To connect, and to send a request. What an answer may take is up to the call.
SEND_TIMEOUT_S = 10.0
#: To say that a session is over.
GOODBYE_TIMEOUT_S = 2.0


class HttpTransport:
    """One session with a server at an address."""

    def __init__(self, config: ToolsConfig) -> None:
        self._config = config
        #: Set when the session can be used no more.
        self.ended = asyncio.Event()
        #: What the server last refused with; goes on from "the server".
        self.failure = self.hint = ""
        #: The server was started anew, and a request was refused unseen.
        self.session_forgotten = False

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """Speaks to the server while this is entered."""
        headers = {name: value.get_secret_value() for name, value in self._config.headers.items()}
        client = httpx2.AsyncClient(
            # Unpacked, a small answer could be any size.
            headers={"accept-encoding": "identity", **headers},
            timeout=httpx2.Timeout(SEND_TIMEOUT_S, read=None),
            event_hooks={"request": [_limit_goodbye], "response": [self._on_response]},
        )
        async with (
            client,
            streamable_http_client(
                str(self._config.url), http_client=client, max_sse_event_size=MESSAGE_BYTES_MAX
            ) as (reads, writes),
        ):
            yield reads, writes

    def skip_grace(self) -> None:
        """Nothing of it runs here."""

    async def _on_response(self, response: httpx2.Response) -> None:
        if response.request.method != "POST":
            return
        self.failure = ""
        if response.status_code == 404 and "mcp-session-id" in response.request.headers:
            self.failure, self.session_forgotten = "has forgotten this session", True
            self.ended.set()
        elif response.status_code >= 400:
            self.failure = f"answered {response.status_code} {response.reason_phrase}".rstrip()
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream, self._on_overflow)

    def _on_overflow(self) -> None:
        self.failure = f"sent more than {MESSAGE_BYTES_MAX >> 20} MiB"


async def _limit_goodbye(request: httpx2.Request) -> None:
    """The end of a session is told, not waited for as an answer is."""
    if request.method == "DELETE":
        request.extensions["timeout"] = httpx2.Timeout(GOODBYE_TIMEOUT_S).as_dict()


class _Bounded(httpx2.AsyncByteStream):
    """What a response says, up to the bound."""

    def __init__(self, stream: httpx2.AsyncByteStream, on_overflow: Callable[[], None]) -> None:
        self._stream, self._on_overflow = stream, on_overflow

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MESSAGE_BYTES_MAX
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                self._on_overflow()
                raise httpx2.StreamError("too much")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
