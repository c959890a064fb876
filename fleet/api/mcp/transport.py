"""The route `POST /mcp`: the body, the start of the server, and clients that disconnect or cancel.

Each request is complete in itself: without sessions an API may restart at any time, and any of
several API processes can answer.
"""

import asyncio
import codecs
from collections.abc import Coroutine
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from fleet.api.auth.access import caller_of
from fleet.api.mcp.running_calls import RunningCalls
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
_JSON_RANGES = frozenset({MEDIA_TYPE, "application/*", "*/*"})

#: How long running calls may continue once the API stops; the API itself waits for a second.
SHUTDOWN_GRACE_S = 0.6

_THREADS = 4
_WAITING_MAX = 1024
#: Error codes of JSON-RPC 2.0.
_PARSE_ERROR, _INVALID_REQUEST = -32700, -32600
#: As in the Language Server Protocol; the client no longer waits for it.
_CANCELLED = -32800


class McpRoute:
    """The ASGI application behind `POST /mcp`. Used in one event loop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._threads = BoundedThreads("mcp", _THREADS, _WAITING_MAX)
        self._running = RunningCalls()
        self._shutting_down = asyncio.Event()
        self._starting: asyncio.Task[McpServer] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises errors known to `as_problem`."""
        if check_media_type(scope) != MEDIA_TYPE:
            detail = "`Content-Type` must be application/json."
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media-type", detail)
        scope = _accepting(scope)
        limit = min(BODY_BYTES_MAX, caller_of(scope).body_bytes or BODY_BYTES_MAX)
        try:
            # The SDK reads the body again, and knows no byte order mark.
            body = (await read_body(scope, receive, limit)).removeprefix(codecs.BOM_UTF8)
        except ClientGone:
            return
        message = _message(body)
        if isinstance(message, JSONResponse):
            await message(scope, receive, send)
            return
        self._running.cancel(scope, message)
        server = await self._server()
        with self._running.call(scope, message) as cancelled:
            work = asyncio.ensure_future(server.handle(scope, _replay(body), send))
            await _race(work, _disconnected(receive), self._grace_over(), _set(cancelled))
        if not work.cancelled():
            work.result()
        elif cancelled.is_set():
            answer = _error(_CANCELLED, "The call was cancelled.", HTTPStatus.OK, message["id"])
            await answer(scope, receive, send)
        elif self._shutting_down.is_set():
            detail = "The API is stopping: call again."
            wait_s = RETRY_AFTER_S
            status = HTTPStatus.SERVICE_UNAVAILABLE
            raise Problem(status, "unavailable", detail, retry_after_s=wait_s)

    def begin_shutdown(self) -> None:
        """Cancel calls that outlast the grace period."""
        self._shutting_down.set()

    async def close(self) -> None:
        """Stop the server and its tool servers."""
        starting = self._starting
        if starting is not None:
            await asyncio.wait((starting,))
        if self._starting is not None:  # None after a failed start
            await self._starting.result().close()

    async def _grace_over(self) -> None:
        await self._shutting_down.wait()
        await asyncio.sleep(SHUTDOWN_GRACE_S)

    async def _server(self) -> "McpServer":
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._forget_failure)
        # The first caller may disconnect while others wait for the same start.
        return await asyncio.shield(self._starting)

    async def _start(self) -> "McpServer":
        module: Any = await self._threads.run(lambda: import_module("fleet.api.mcp.server"))
        server: McpServer = module.McpServer(self._runtime, self._threads, BODY_BYTES_MAX)
        await server.start()
        return server

    def _forget_failure(self, start: "asyncio.Task[McpServer]") -> None:
        if start.cancelled() or start.exception() is not None:
            self._starting = None


def _accepting(scope: Scope) -> Scope:
    """The request with an `Accept` that the SDK knows; without one a client takes any answer.

    Raises Problem 406 for a client that takes no JSON.
    """
    accept = Headers(scope=scope).get("accept", "").strip()
    if not accept:
        kept = [(name, value) for name, value in scope["headers"] if name != b"accept"]
        return {**scope, "headers": [*kept, (b"accept", b"application/json")]}
    if not {one.partition(";")[0].strip().lower() for one in accept.split(",")} & _JSON_RANGES:
        detail = "`Accept` must allow application/json, the form of the answers here."
        raise Problem(HTTPStatus.NOT_ACCEPTABLE, "not-acceptable", detail)
    return scope


def _replay(body: bytes) -> Receive:
    """Replay the request's body for the SDK."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()  # `_disconnected` watches the client
        return left.pop()

    return receive


async def _race(work: "asyncio.Future[None]", *others: Coroutine[Any, Any, None]) -> None:
    """Wait for the first of these, and cancel the rest. Each of the others ends the work."""
    waits = {work, *map(asyncio.ensure_future, others)}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _set(event: asyncio.Event) -> None:
    await event.wait()


def _message(body: bytes) -> dict[str, Any] | JSONResponse:
    """The message in a body, or the error for one that is none."""
    try:
        message = parse_json(body)
        from_json(body)  # rejects lone surrogates and excessive nesting, unlike Python's parser
    except Problem as problem:
        return _error(_PARSE_ERROR, str(problem))
    except ValueError as error:
        return _error(_PARSE_ERROR, f"The body cannot be read: {error}.")
    if not isinstance(message, dict):
        return _error(_INVALID_REQUEST, "The body must be one JSON-RPC message; send no batch.")
    return message


def _error(
    code: int,
    sentence: str,
    status: HTTPStatus = HTTPStatus.BAD_REQUEST,
    request_id: Any = None,
) -> JSONResponse:
    error = {"code": code, "message": sentence}
    wire = {"jsonrpc": "2.0", "id": request_id, "error": error}
    return JSONResponse(wire, int(status))
