"""A tool server at an address: Streamable HTTP, with a bound on what one response may hold."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import httpx2
from mcp.client.streamable_http import streamable_http_client

from fleet.config.tools import ToolsConfig
from fleet.tools.mcp.program import MESSAGE_BYTES_MAX, Streams

#: To connect, and to send a request. What an answer may take is up to the call.
SEND_S = 10.0
#: To say that a session is over.
GOODBYE_S = 2.0


class Web:
    """One session with a server at an address."""

    def __init__(self, section: ToolsConfig) -> None:
        self._section = section
        #: Set when the session can be used no more.
        self.ended = asyncio.Event()
        #: What the server last refused with; goes on from "the server".
        self.trouble = self.remark = ""
        #: The server was started anew, and a request was refused unseen.
        self.forgotten = False

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """Speaks to the server while this is entered."""
        headers = {name: value.get_secret_value() for name, value in self._section.headers.items()}
        client = httpx2.AsyncClient(
            # Unpacked, a small answer could be any size.
            headers={"accept-encoding": "identity", **headers},
            timeout=httpx2.Timeout(SEND_S, read=None),
            event_hooks={"request": [_hurry_goodbye], "response": [self._look]},
        )
        async with (
            client,
            streamable_http_client(
                str(self._section.url), http_client=client, max_sse_event_size=MESSAGE_BYTES_MAX
            ) as (reads, writes),
        ):
            yield reads, writes

    def hurry(self) -> None:
        """Nothing of it runs here."""

    async def _look(self, response: httpx2.Response) -> None:
        if response.request.method != "POST":
            return
        self.trouble = ""
        if response.status_code == 404 and "mcp-session-id" in response.request.headers:
            self.trouble, self.forgotten = "has forgotten this session", True
            self.ended.set()
        elif response.status_code >= 400:
            self.trouble = f"answered {response.status_code} {response.reason_phrase}".rstrip()
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream, self._too_much)

    def _too_much(self) -> None:
        self.trouble = f"sent more than {MESSAGE_BYTES_MAX >> 20} MiB"


async def _hurry_goodbye(request: httpx2.Request) -> None:
    """The end of a session is told, not waited for as an answer is."""
    if request.method == "DELETE":
        request.extensions["timeout"] = httpx2.Timeout(GOODBYE_S).as_dict()


class _Bounded(httpx2.AsyncByteStream):
    """What a response says, up to the bound."""

    def __init__(self, stream: httpx2.AsyncByteStream, too_much: Callable[[], None]) -> None:
        self._stream, self._too_much = stream, too_much

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MESSAGE_BYTES_MAX
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                self._too_much()
                raise httpx2.StreamError("too much")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
