"""One connection to a tool server, from its greeting to its end.

The SDK's contexts must be exited in the task that entered them, so each connection has its own
task. When the task ends, nothing of the connection is left: no program, no socket.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio
from mcp import ClientSession, MCPError
from mcp import types as mcp_types
from mcp.client import IncomingMessage
from pydantic import BaseModel, ValidationError

from fleet.config.tools import ToolsConfig
from fleet.tools.mcp.errors import ToolServerError
from fleet.tools.mcp.mending import Pending, Received, Sent
from fleet.tools.mcp.program import ServerProgram
from fleet.tools.mcp.web import HttpTransport
from fleet.version import VERSION

logger = logging.getLogger(__name__)

#: Time limit of the greeting; a server that `uvx` must fetch first takes longest.
START_S = 20.0
#: Time limit of the list of tools, all pages together.
LIST_TIMEOUT_S = 20.0
TOOLS_MAX = 1000
#: After a call that timed out: a server that does not answer a ping in this time hangs.
PING_TIMEOUT_S = 2.0
#: How long a lost connection may take to report why it ended.
END_TIMEOUT_S = 30.0

Answer = TypeVar("Answer", bound=BaseModel)
Value = TypeVar("Value")


#: Refusals by which a server says that it did not handle a request.
UNHANDLED = frozenset({400, 401, 404})


class SessionForgotten(ToolServerError):
    """The server has forgotten the session: `handled` is False where it has done nothing."""

    def __init__(self, sentence: str, *, handled: bool = False) -> None:
        super().__init__(sentence)
        self.handled = handled


class Connection:
    """A connection, opened by its constructor. `ended` is set when it is over or could not open."""

    def __init__(self, name: str, config: ToolsConfig) -> None:
        self._name, self._start_s = name, max(START_S, config.timeout_s)
        self._transport: ServerProgram | HttpTransport = (
            ServerProgram(name, config) if config.command else HttpTransport(config)
        )
        self._session: ClientSession | None = None
        self._opened, self.ended = asyncio.Event(), asyncio.Event()
        self._reason, self._greeting = "", anyio.CancelScope()
        self._tools: list[mcp_types.Tool] | None = None
        self._changes, self._listing = 0, asyncio.Lock()
        #: Tools that cannot be used, with the reasons.
        self.left_out: dict[str, str] = {}
        self._task = asyncio.create_task(self._run(), name=f"tools.{name}")

    @property
    def ending(self) -> bool:
        """True when the connection is no longer usable, though it may not have ended yet."""
        return self._transport.ended.is_set() or self.ended.is_set()

    async def opened(self) -> None:
        """Return when the connection is open. Raises ToolServerError when it cannot open."""
        await self._opened.wait()
        if self._session is None:
            raise self._error(self._reason)

    async def close(self) -> None:
        """Stop the connection and its program. Returns when both have ended."""
        self._transport.ended.set()
        self._greeting.cancel()
        await asyncio.wait([self._task])

    async def tools(self) -> list[mcp_types.Tool]:
        """The server's tools; cached until the server announces a change."""
        async with self._listing:
            if self._tools is not None:
                return self._tools
            changes = self._changes
            found = await self._with_timeout(
                LIST_TIMEOUT_S, "the list of its tools", self._list_pages()
            )
            # Servers of the newer protocol announce changes to subscribers only: do not cache.
            announces = self._session is not None and self._session.initialize_result is not None
            if announces and changes == self._changes:
                self._tools = found
            return found

    def is_repeatable(self, name: str) -> bool:
        """True where the server said in its list that to call the tool twice changes no more."""
        hints = (tool.annotations for tool in self._tools or () if tool.name == name)
        return any(one and (one.read_only_hint or one.idempotent_hint) for one in hints)

    async def call(
        self, name: str, arguments: dict[str, Any], timeout_s: float
    ) -> mcp_types.CallToolResult:
        """Call a tool. A call that times out is cancelled at the server."""
        name, arguments = _encodable(name), _encodable(arguments)
        params = mcp_types.CallToolRequestParams(name=name, arguments=arguments)
        request = mcp_types.CallToolRequest(params=params)
        response = self._request(request, mcp_types.CallToolResult, timeout_s)
        return await self._with_timeout(timeout_s, name, response)

    async def _run(self) -> None:
        pending = Pending(self._leave_out)
        try:
            async with (
                self._transport.streams() as streams,
                ClientSession(
                    Received(streams[0], pending),
                    Sent(streams[1], pending),
                    message_handler=self._on_message,
                    client_info=mcp_types.Implementation(name="fleet", version=VERSION),
                ) as session,
            ):
                await self._greet(session)
                self._session = session
                self._opened.set()
                await self._transport.ended.wait()
        except Exception as error:  # noqa: BLE001 - any error ends the connection; reported as why
            self._reason = self._reason or self._transport.failure or _cause(error)
        finally:
            self._reason = self._reason or self._transport.failure or "ended"
            if self._session is None:
                self._reason += self._transport.hint
            self._session = None
            self._transport.ended.set()
            self._opened.set()
            self.ended.set()

    async def _greet(self, session: ClientSession) -> None:
        with anyio.move_on_after(self._start_s) as self._greeting:
            if self._transport.ended.is_set():  # closed before the greeting began
                self._greeting.cancel()
            try:
                await session.initialize()
            except MCPError as error:
                if error.code == mcp_types.CONNECTION_CLOSED:
                    raise
                # A server of the newer protocol has no greeting: discover its capabilities.
                await session.discover()
            return
        closed = self._transport.ended.is_set()
        self._transport.skip_grace()
        self._reason = (
            "was ended" if closed else f"did not answer `initialize` within {self._start_s:g} s"
        )
        raise ConnectionError

    def _leave_out(self, tool: str, reason: str) -> None:
        if tool not in self.left_out:
            logger.warning("tools.%s: the tool %a is left out: %s", self._name, tool, reason)
        self.left_out[tool] = reason

    async def _on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self._tools, self._changes = None, self._changes + 1

    async def _list_pages(self) -> list[mcp_types.Tool]:
        found: list[mcp_types.Tool] = []
        cursor: str | None = None
        while True:
            params = mcp_types.PaginatedRequestParams(cursor=cursor) if cursor else None
            request = mcp_types.ListToolsRequest(params=params)
            try:
                page = await self._request(request, mcp_types.ListToolsResult, LIST_TIMEOUT_S)
            except ToolServerError as error:
                if error.code == mcp_types.METHOD_NOT_FOUND:
                    return []
                raise
            found += page.tools
            cursor = page.next_cursor
            if not cursor or not page.tools:
                return found
            if len(found) >= TOOLS_MAX:
                raise self._error(f"offers more than {TOOLS_MAX} tools")

    async def _with_timeout(
        self, seconds: float, subject: str, response: Coroutine[Any, Any, Value]
    ) -> Value:
        """The result of `response`. Raises ToolServerError where the server is slow or hangs."""
        task = asyncio.create_task(response)
        # The SDK's own limit begins after the request is written, which may hang too.
        if await _finishes(task, seconds + PING_TIMEOUT_S):
            with contextlib.suppress(TimeoutError):
                return task.result()
        more = "" if await self._responds() else "; the server hangs and is ended"
        raise self._error(f"took longer than {seconds:g} s for {subject}{more}")

    async def _request(
        self, request: mcp_types.ClientRequest, answer: type[Answer], timeout_s: float
    ) -> Answer:
        session = self._session
        if session is None:
            raise self._error(self._reason)
        try:
            return await session.send_request(
                request, answer, request_read_timeout_seconds=timeout_s
            )
        except MCPError as error:
            if self._transport.session_forgotten:
                raise SessionForgotten(str(self._error(self._transport.failure))) from error
            if error.code == mcp_types.REQUEST_TIMEOUT:
                raise TimeoutError from error
            if error.code == mcp_types.CONNECTION_CLOSED:
                raise await self._lost() from error
            if fault := self._transport.failure:
                if refused_with := self._transport.refused_with:
                    await self._check_session(request, fault, refused_with)
                raise self._error(fault, code=error.code) from error
            fault = f"answered: {error.message} ({error.code})"
            raise self._error(fault, code=error.code, answered=True, data=error.data) from error
        except ValidationError as error:
            # The error's own text would repeat the content.
            raise self._error("answered with what the protocol does not allow") from error

    async def _check_session(
        self, request: mcp_types.ClientRequest, fault: str, refused_with: int
    ) -> None:
        """Raises SessionForgotten where the server refuses a ping of this session, too."""
        if isinstance(request, mcp_types.PingRequest) or await self._responds(in_session=True):
            return
        sentence = f"{fault}, and has lost this session"
        raise SessionForgotten(str(self._error(sentence)), handled=refused_with not in UNHANDLED)

    async def _responds(self, *, in_session: bool = False) -> bool:
        """Ping the server; if it does not answer, stop the connection and return False.

        With `in_session` a refusal by HTTP is no answer.
        """
        ping = self._request(mcp_types.PingRequest(), mcp_types.EmptyResult, PING_TIMEOUT_S)
        task = asyncio.create_task(ping)
        if await _finishes(task, PING_TIMEOUT_S):
            error = task.exception()
            told = isinstance(error, ToolServerError) and (
                error.answered or (error.code is not None and not in_session)
            )
            if error is None or told:
                return True
        self._transport.skip_grace()
        self._transport.ended.set()
        return False

    async def _lost(self) -> ToolServerError:
        self._transport.ended.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), END_TIMEOUT_S)
        return self._error(f"{self._reason or 'ended'} in the middle of it")

    def _error(self, fault: str, **answer: Any) -> ToolServerError:
        whole = fault.startswith("tools.")
        sentence = fault if whole else f"tools.{self._name}: the server {fault}."
        return ToolServerError(sentence, **answer)


async def _finishes(task: asyncio.Task[Any], seconds: float) -> bool:
    """True when the task ends within `seconds`; otherwise cancel it and do not wait for its end."""
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        return bool((await asyncio.wait([task], timeout=seconds))[0])
    finally:
        task.cancel()


def _encodable(value: Value) -> Value:
    """Replace lone surrogates, which a model may write and no transport can send."""
    text = json.dumps(value, ensure_ascii=False).encode(errors="replace")
    same: Value = json.loads(text)
    return same


def _cause(error: BaseException) -> str:
    """The cause in words that continue a sentence from "the server"; the first of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ToolServerError):
        return str(error)
    if isinstance(error, MCPError):
        closed = error.code == mcp_types.CONNECTION_CLOSED
        return "" if closed else f"refused the greeting: {error.message}"
    if isinstance(error, ValidationError):
        return "answered the greeting with what the protocol does not allow"
    return f"cannot be reached ({str(error) or type(error).__name__})"
