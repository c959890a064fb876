"""A tool server at a URL: Streamable HTTP, with a bound on the size of a response."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import httpx2
from mcp.client.streamable_http import streamable_http_client

from fleet.config.tools import ToolsConfig
from fleet.system.outgoing import client_options
from fleet.tools.mcp.program import MESSAGE_BYTES_MAX, Streams
from fleet.tools.mcp.readable import strict

#: Time limit to connect, and to send a request. The call limits the wait for its answer.
SEND_TIMEOUT_S = 10.0
#: Time limit of the request that closes a session.
GOODBYE_TIMEOUT_S = 2.0
NOT_FOUND = 404
_DATA = b"data:"


class HttpTransport:
    """One session with a server at a URL."""

    def __init__(self, config: ToolsConfig) -> None:
        self._config = config
        #: Set when the session is no longer usable.
        self.ended = asyncio.Event()
        #: The server's last refusal; continues a sentence from "the server".
        self.failure = self.hint = ""
        #: The server has restarted, and refused a request without handling it.
        self.session_forgotten = False
        #: The status of the newest refusal within a session, which may mean that it is forgotten.
        self.refused_with = 0

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """Keep a session with the server within this context."""
        headers = {name: value.get_secret_value() for name, value in self._config.headers.items()}
        client = httpx2.AsyncClient(
            # A small compressed answer could unpack to any size.
            headers={"accept-encoding": "identity", **headers},
            timeout=httpx2.Timeout(SEND_TIMEOUT_S, read=None),
            **client_options(str(self._config.url)),
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
        """Do nothing: no program runs here."""

    async def _on_response(self, response: httpx2.Response) -> None:
        if response.request.method != "POST":
            return
        self.failure, self.refused_with = "", 0
        in_session = "mcp-session-id" in response.request.headers
        if response.status_code == NOT_FOUND and in_session:
            self.failure, self.session_forgotten = "has forgotten this session", True
            self.ended.set()
        elif response.status_code >= 400:
            self.failure = f"answered {response.status_code} {response.reason_phrase}".rstrip()
            self.refused_with = response.status_code if in_session else 0
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream, self._on_overflow)

    def _on_overflow(self) -> None:
        self.failure = f"sent more than {MESSAGE_BYTES_MAX >> 20} MiB"


async def _limit_goodbye(request: httpx2.Request) -> None:
    """Limit the wait for the request that closes a session."""
    if request.method == "DELETE":
        request.extensions["timeout"] = httpx2.Timeout(GOODBYE_TIMEOUT_S).as_dict()


class _Bounded(httpx2.AsyncByteStream):
    """The body of a response, up to the bound; each line in a form that can be read."""

    def __init__(self, stream: httpx2.AsyncByteStream, on_overflow: Callable[[], None]) -> None:
        self._stream, self._on_overflow = stream, on_overflow

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left, rest = MESSAGE_BYTES_MAX, list[bytes]()
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                self._on_overflow()
                raise httpx2.StreamError("too much")
            head, newline, tail = chunk.rpartition(b"\n")
            if not newline:
                rest.append(tail)
                continue
            lines = b"".join([*rest, head]).split(b"\n")
            rest = [tail]
            yield b"".join(_readable(line) + b"\n" for line in lines)
        if last := b"".join(rest):
            yield _readable(last)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _readable(line: bytes) -> bytes:
    """A line of JSON, or of an event, as the SDK can read it."""
    if line.startswith(_DATA):
        return _DATA + b" " + strict(line.removeprefix(_DATA).strip())
    return strict(line)
