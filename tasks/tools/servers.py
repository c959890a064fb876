"""Tools of servers of the Model Context Protocol.

All servers of a process are spoken to in one event loop, in a thread of its own that starts with
the first of them, after the fork. A connection is kept over the turns: starting a program takes
seconds. Turns wait for that thread in a way that their time limit interrupts.
"""

import asyncio
import os
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from threading import Thread
from typing import TYPE_CHECKING, Any

from fleet.config.tools import ToolsConfig as Terms
from fleet.formats.terminal_text import sanitize
from fleet.ledger import Failure, FailureStage
from fleet.tools.functions import Spec, ToolError
from fleet.tools.mcp.errors import ToolServerError
from fleet.tools.mcp.names import provider_names
from fleet.turn.runner import TurnFailed
from fleet.turn.turn import Deadline, Turn
from tasks.tools.content import told

if TYPE_CHECKING:
    from fleet.tools.mcp.server import ToolServer

#: So much longer may a call take: to see whether its server hangs, or to start it anew.
GRACE_S = 10.0
#: The soft limit interrupts the wait for a server; that it does not come is noticed after this.
BACKSTOP_S = 5.0
DESCRIPTION_MAX = 8192
#: A server's own words may be part of it.
REASON_MAX = 500


class ServerToolbox:
    """The tools of one server, for one turn."""

    def __init__(self, turn: Turn, name: str, terms: Terms) -> None:
        """Asks the server for its tools; `ready` waits for them."""
        self._turn, self._name, self._terms = turn, name, terms
        self._asked = _servers(os.getpid()).start(_listed(name, terms))
        self._specs: Sequence[Spec] = ()

    def ready(self) -> None:
        """Return once there are tools. Raises TurnFailed where the server cannot be had."""
        try:
            tools = _wait(self._asked, self._turn.deadline + BACKSTOP_S)
        except TimeoutError as error:
            raise Deadline from error
        except ToolServerError as error:
            reason = str(error)[:REASON_MAX]
            raise TurnFailed(
                Failure(stage=FailureStage.TOOL, reason=reason, retryable=True, kind="ToolServer")
            ) from error
        self._specs = _specs(tools)

    @property
    def specs(self) -> Sequence[Spec]:
        """By name, so that a turn that is run again asks its model the same."""
        return self._specs

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What the server answers. Raises ToolError with its words where that is an error."""
        timeout_s = max(0.1, min(self._terms.timeout_s, self._turn.remaining_s))
        asked = _servers(os.getpid()).start(
            _called(self._name, self._terms, name, dict(arguments), timeout_s)
        )
        try:
            result = _wait(asked, time.monotonic() + timeout_s + GRACE_S)
        except TimeoutError as error:
            raise ToolError(f"{name} took longer than {timeout_s:g} s") from error
        except ToolServerError as error:
            raise ToolError(str(error)) from error
        text = told(result)
        if result.is_error:
            raise ToolError(text)
        return text


class _Servers:
    """The event loop of this process' servers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, name="tool servers", daemon=True).start()

    def start(self, asked: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(asked, self._loop)


@cache
def _servers(_pid: int) -> _Servers:
    """One for each process: no thread survives a fork."""
    return _Servers()


#: Only the loop's thread looks in here.
_known: "dict[str, ToolServer]" = {}


def _server(name: str, terms: Terms) -> "ToolServer":
    if name not in _known:
        # Here, in the loop's thread: it takes a second, and a time limit would break it off.
        from fleet.tools.mcp.server import ToolServer

        _known[name] = ToolServer(name, terms)
    return _known[name]


async def _listed(name: str, terms: Terms) -> Any:
    return await _server(name, terms).list_tools()


async def _called(
    name: str, terms: Terms, tool: str, arguments: dict[str, Any], timeout_s: float
) -> Any:
    return await _server(name, terms).call_tool(tool, arguments, timeout_s=timeout_s)


def _wait(asked: "Future[Any]", until: float) -> Any:
    """Its result. Raises TimeoutError at `until` (monotonic); whatever ends the wait cancels it."""
    try:
        return asked.result(max(0.0, until - time.monotonic()))
    finally:
        asked.cancel()


def _specs(tools: Iterable[Any]) -> list[Spec]:
    known = {str(tool.name): tool for tool in tools}
    return [_spec(told_name, known[own]) for told_name, own in provider_names(known).items()]


def _spec(told_name: str, tool: Any) -> Spec:
    return Spec(
        name=told_name,
        description=sanitize(tool.description or tool.title or "")[:DESCRIPTION_MAX],
        parameters={"type": "object", "properties": {}, **tool.input_schema},
        called=tool.name,
    )
