"""The door of `POST /mcp`: the body, the first request's wait for the server, and clients that go.

Each request is complete in itself: there is no session to lose, so an API may be restarted, and any
of several can answer.
"""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from fleet.api.auth.access import caller_of
from fleet.api.request.body import ClientGone, check_media_type, parse_json, read_body
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.problems import RETRY_AFTER_S, Problem
from fleet.runtime import Runtime
from routing.event import EVENT_BYTES_MAX

if TYPE_CHECKING:
    from fleet.api.mcp.server import McpServer

#: An event of the greatest size fits into a call.
BODY_BYTES_MAX = EVENT_BYTES_MAX + 64 * 1024
MEDIA_TYPE = "application/json"

#: A call may go on for so long when the API ends; the API waits for a second.
END_S = 0.6

_THREADS = 4
_WAITING_MAX = 1024
#: JSON-RPC 2.0's own codes.
_PARSE_ERROR, _INVALID_REQUEST = -32700, -32600


class McpRoute:
    """The ASGI application behind `POST /mcp`. Used in one event loop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lane = BoundedThreads("mcp", _THREADS, _WAITING_MAX)
        self._ending = asyncio.Event()
        self._starting: asyncio.Task[McpServer] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises what `as_problem` knows."""
        if check_media_type(scope) != MEDIA_TYPE:
            detail = "`Content-Type` must be application/json."
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media-type", detail)
        limit = min(BODY_BYTES_MAX, caller_of(scope).body_bytes or BODY_BYTES_MAX)
        try:
            body = await read_body(scope, receive, limit)
        except ClientGone:
            return
        if (refusal := _refusal(body)) is not None:
            await refusal(scope, receive, send)
            return
        server = await self._server()
        work = asyncio.ensure_future(server.handle(scope, _replay(body), send))
        await _first(work, _gone(receive), self._over())
        if not work.cancelled():
            work.result()
        elif self._ending.is_set():
            detail = "The API is ending: call again, which another one may answer."
            wait_s = RETRY_AFTER_S
            status = HTTPStatus.SERVICE_UNAVAILABLE
            raise Problem(status, "unavailable", detail, retry_after_s=wait_s)

    def end(self) -> None:
        """Let nobody wait for what takes longer than the end of the API may."""
        self._ending.set()

    async def close(self) -> None:
        """End the server, and the tool servers that it has begun."""
        starting = self._starting
        if starting is not None:
            await asyncio.wait((starting,))
        if self._starting is not None:  # else it failed, and was forgotten
            await self._starting.result().close()

    async def _over(self) -> None:
        await self._ending.wait()
        await asyncio.sleep(END_S)

    async def _server(self) -> "McpServer":
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._forget_failure)
        # Whoever came first may leave; the others wait for the same start.
        return await asyncio.shield(self._starting)

    async def _start(self) -> "McpServer":
        module: Any = await self._lane.run(lambda: import_module("fleet.api.mcp.server"))
        server: McpServer = module.McpServer(self._runtime, self._lane, BODY_BYTES_MAX)
        await server.start()
        return server

    def _forget_failure(self, start: "asyncio.Task[McpServer]") -> None:
        if start.cancelled() or start.exception() is not None:
            self._starting = None


def _replay(body: bytes) -> Receive:
    """The request's body once more, for the protocol's library to read."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not left:
            # A client that goes is noticed elsewhere.
            await asyncio.Event().wait()
        return left.pop()

    return receive


async def _first(work: "asyncio.Future[None]", *others: Coroutine[Any, Any, None]) -> None:
    """Wait for the first of these, and cancel the rest. The others are why to give the work up."""
    waits = {work, *map(asyncio.ensure_future, others)}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _refusal(body: bytes) -> JSONResponse | None:
    """What a body is refused with that is no message at all."""
    try:
        message = parse_json(body)
        # Stricter where Python is generous: lone surrogates, and what is nested deeper than others
        # can say again.
        from_json(body)
    except Problem as problem:
        return _error(_PARSE_ERROR, str(problem))
    except ValueError as error:
        return _error(_PARSE_ERROR, f"The body cannot be read: {error}.")
    if not isinstance(message, dict):
        return _error(_INVALID_REQUEST, "The body must be one JSON-RPC message; send no batch.")
    return None


def _error(code: int, sentence: str) -> JSONResponse:
    error = {"code": code, "message": sentence}
    wire = {"jsonrpc": "2.0", "id": None, "error": error}
    return JSONResponse(wire, int(HTTPStatus.BAD_REQUEST))
