"""The protocol: the SDK's server over Streamable HTTP, and the results of its tools.

A tool's refusal is a result, for the model to read. A busy session, or a store of locks that is
down, is an error of the protocol: the client should retry, not its model. An error of the protocol
from a tool server stays one, with its code and its data.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from starlette.types import Receive, Scope, Send

from fleet import locks
from fleet.api.auth.access import rights_of
from fleet.api.mcp import fleet_tools
from fleet.api.mcp.proxied_tools import ProxiedTools
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.problems import Problem, as_problem
from fleet.errors import SessionBusy
from fleet.runtime import Runtime
from fleet.tools.fleet_tools import CLASSES
from fleet.tools.functions import Spec, ToolError
from fleet.tools.mcp.errors import ToolServerError
from fleet.version import VERSION

#: The session or the turn is busy: retry after `retry_after_s`.
BUSY = -32002
INSTRUCTIONS = (
    "Gives work to the agents of this fleet: queue_activity shows who there is, queue_dispatch "
    "sends work and returns at once, queue_status has the answer when the state is completed."
)

Context = ServerRequestContext[Any]

# The SDK would log the content of calls and results.
logging.getLogger("mcp.server").setLevel(logging.CRITICAL)


class McpServer:
    """The server of one API process. Used in one event loop."""

    def __init__(self, runtime: Runtime, threads: BoundedThreads, body_bytes_max: int) -> None:
        """`threads` run the calls of the fleet's own tools."""
        self._runtime, self._threads = runtime, threads
        self._specs: list[Spec] = []  #: the same for all callers
        self._proxied = ProxiedTools(runtime)
        # Stateless: each request is complete, and its answer is one JSON document.
        self._manager = StreamableHTTPSessionManager(
            Server(
                "fleet",
                version=VERSION,
                instructions=INSTRUCTIONS,
                on_list_tools=self._list,
                on_call_tool=self._call,
                get_tool_input_schema=lambda _: None,
            ),
            json_response=True,
            stateless=True,
            max_request_body_size=body_bytes_max,
        )
        self._running: asyncio.Task[None] | None = None
        self._ready, self._closing = asyncio.Event(), asyncio.Event()

    async def start(self) -> None:
        """Start the SDK's server."""
        self._running = asyncio.create_task(self._run())
        await self._ready.wait()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of an admitted caller."""
        await self._manager.handle_request(scope, receive, send)

    async def close(self) -> None:
        """Stop running requests and the tool servers."""
        self._closing.set()
        if self._running is not None:
            await self._running
        await self._proxied.close()

    async def _run(self) -> None:
        # The SDK's context must be exited in the task that entered it.
        async with self._manager.run():
            self._ready.set()
            await self._closing.wait()

    async def _list(
        self, context: Context, _: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        scope = _scope(context)
        if not self._specs:
            self._specs = await self._threads.run(lambda: fleet_tools.specs(self._runtime, scope))
        proxied = await self._proxied.tools(rights_of(scope))
        return types.ListToolsResult(tools=[*map(_to_tool, self._specs), *proxied])

    async def _call(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        try:
            return await self._answer(context, params.name, params.arguments or {})
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001 - each becomes an answer; faults are logged
            return _error_result(error)

    async def _answer(
        self, context: Context, name: str, arguments: Mapping[str, Any]
    ) -> types.CallToolResult:
        scope = _scope(context)
        if name in CLASSES:
            work = partial(fleet_tools.call, self._runtime, scope, name, arguments)
            return _text_result(await self._threads.run(work))
        tools = self._proxied.set_of(name)
        if tools is None:
            sentence = f"There is no tool {name[:64]!r}: tools/list has the known names."
            raise MCPError(types.INVALID_PARAMS, sentence)
        rights_of(scope).need_tools(tools)
        return await self._proxied.call(tools, name, arguments, scope, context.meta or {})


def _scope(context: Context) -> Scope:
    request: Any = context.request  # always Starlette's
    scope: Scope = request.scope
    return scope


def _to_tool(spec: Spec) -> types.Tool:
    return types.Tool(
        name=spec.name,
        description=spec.description,
        input_schema=dict(spec.parameters),
        annotations=types.ToolAnnotations(read_only_hint=CLASSES[spec.name] == "read"),
    )


def _text_result(text: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], is_error=is_error
    )


def _error_result(error: Exception) -> types.CallToolResult:
    """Turn a refusal into a result. Raises MCPError for what is an error of the protocol."""
    if isinstance(error, ToolServerError) and error.answered and error.code is not None:
        raise MCPError(error.code, str(error), error.data) from error
    if isinstance(error, ToolError | ToolServerError):
        return _text_result(str(error), is_error=True)
    if isinstance(error, SessionBusy | locks.LockBusy):
        raise MCPError(BUSY, str(error), {"retry_after_s": error.retry_after_s}) from error
    problem: Problem = as_problem(error)
    if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return _text_result(str(problem), is_error=True)
    wait_s = problem.retry_after_s
    hint = None if wait_s is None else {"retry_after_s": wait_s}
    raise MCPError(types.INTERNAL_ERROR, str(problem), hint) from error
