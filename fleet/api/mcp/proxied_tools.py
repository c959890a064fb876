"""The tools of the tool servers in `[mcp]`, called under the locks of session and turn.

A session is busy with one turn at a time; within a turn, reads run beside each other and writes
alone. A client names its session and turn by header or in `_meta`. A client without a session is a
session with a single turn, so its reads do not wait for each other. A client that names only a
session has a new turn for each request.
"""

import asyncio
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from mcp import types
from mcp.shared.exceptions import MCPError
from starlette.datastructures import Headers
from starlette.types import Scope

from fleet.api.auth.access import caller_of
from fleet.api.mcp import SESSION_HEADER, TURN_HEADER
from fleet.api.mcp.fleet_tools import caller_id
from fleet.api.request.bounded_threads import ThreadsBusy
from fleet.auth.tokens import Rights
from fleet.config.tools import ToolsConfig
from fleet.locks import ConcurrencyGuard, OperationClassifier, SessionLock, TurnRWLock
from fleet.locks.errors import LockLost
from fleet.locks.guard import Operation
from fleet.runtime import Runtime
from fleet.tools.mcp.errors import ToolServerError
from fleet.tools.mcp.names import provider_names
from fleet.tools.mcp.server import ToolServer
from routing.event import NAME_CHARS_MAX

#: Separates the name of a set from the name of its tool.
SEPARATOR = "__"
#: Calls of one process that are running or wait for locks; each may occupy a thread.
CALLS_MAX = 256
#: The turn of a client without a session.
SHARED_TURN = "all calls"
SESSION_META, TURN_META = "fleet/session", "fleet/turn"

_log = logging.getLogger(__name__)


class ProxiedTools:
    """The tool servers of one API process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, settings = runtime, runtime.settings
        self._calls = 0  #: running now
        #: By set: client name -> server's own name.
        self._server_names: dict[str, dict[str, str]] = {}
        self._configs: dict[str, ToolsConfig] = {
            name: settings.tools[name] for name in settings.mcp.tools
        }
        self._servers = {name: ToolServer(name, config) for name, config in self._configs.items()}
        self._classifiers = {
            name: OperationClassifier(config.classes, f"tools.{name}.classes")
            for name, config in self._configs.items()
        }

    async def tools(self, rights: Rights) -> list[types.Tool]:
        """The tools that a caller may use; a server that does not answer is omitted, and logged."""
        names = [name for name in self._servers if rights.uses(name)]
        listed = await asyncio.gather(*map(self._listed, names))
        return [tool for tools in listed for tool in tools]

    def set_of(self, name: str) -> str | None:
        """The set of a tool, by the tool's name; None for a name of no set."""
        # A set's name may hold the separator itself: the longest matching name counts.
        sets = sorted(self._servers, key=len, reverse=True)
        return next(
            (tool_set for tool_set in sets if name.startswith(f"{tool_set}{SEPARATOR}")), None
        )

    async def call(
        self,
        tools: str,
        name: str,
        arguments: Mapping[str, Any],
        scope: Scope,
        meta: Mapping[str, Any],
    ) -> types.CallToolResult:
        """Call a tool of a set under its locks, by its name for clients.

        Raises ThreadsBusy, LockBusy, StoreUnavailable, ToolServerError.
        """
        if self._calls >= CALLS_MAX:
            raise ThreadsBusy(f"{CALLS_MAX} tools are being called already: try again.")
        self._calls += 1
        result: types.CallToolResult | None = None
        try:
            server_name = await self._server_name(tools, name)
            async with self._locks(tools, server_name, scope, meta):
                result = await self._servers[tools].call_tool(
                    server_name,
                    dict(arguments),
                    timeout_s=self._configs[tools].timeout_s,
                    reads=self._classifiers[tools].classify(server_name) == "read",
                )
        except LockLost as lost:
            if result is None:
                raise
            return _unprotected(result, lost)
        finally:
            self._calls -= 1
        return result

    async def close(self) -> None:
        """Stop the servers."""
        await asyncio.gather(*(server.close() for server in self._servers.values()))

    async def _listed(self, name: str) -> list[types.Tool]:
        try:
            return await self._renamed(name)
        except ToolServerError as error:
            _log.warning("mcp.tools: %s is omitted from a list: %s", name, error)
            return []

    async def _renamed(self, tools: str) -> list[types.Tool]:
        """A set's tools under their names for clients. Raises ToolServerError."""
        listed = await self._servers[tools].list_tools()
        found = {f"{tools}{SEPARATOR}{tool.name}": tool for tool in listed}
        renamed = provider_names(found)
        self._server_names[tools] = {name: found[full].name for name, full in renamed.items()}
        return [found[full].model_copy(update={"name": name}) for name, full in renamed.items()]

    async def _server_name(self, tools: str, name: str) -> str:
        if tools not in self._server_names:
            await self._renamed(tools)
        # The list may be older than a tool, or newer: its server decides.
        return self._server_names[tools].get(name, name.removeprefix(f"{tools}{SEPARATOR}"))

    def _locks(
        self, tools: str, server_name: str, scope: Scope, meta: Mapping[str, Any]
    ) -> Operation:
        session, turn = _session_and_turn(scope, meta)
        config = self._runtime.settings.locks
        times = (config.session_ttl_s, config.acquire_timeout_s)
        # Bypass the breaker: `on_store_down` decides for locks.
        store = self._runtime.unguarded_store
        guard = ConcurrencyGuard(
            SessionLock(store, session, turn, *times),
            # Two sessions may have turns of the same name.
            TurnRWLock(store, f"{turn} of {session}", *times),
            self._classifiers[tools],
            config.on_store_down,
        )
        return guard.operation(server_name)


def _session_and_turn(scope: Scope, meta: Mapping[str, Any]) -> tuple[str, str]:
    """The session and the turn of a request."""
    headers, mine = Headers(scope=scope), f"mcp:{caller_id(caller_of(scope).token)}"
    session = _name(headers, SESSION_HEADER, meta, SESSION_META)
    turn = _name(headers, TURN_HEADER, meta, TURN_META)
    if session is None:
        return mine, turn or SHARED_TURN
    return session, turn or uuid.uuid4().hex


def _name(headers: Headers, header: str, meta: Mapping[str, Any], key: str) -> str | None:
    name = headers.get(header) or meta.get(key)
    if name is None:
        return None
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= NAME_CHARS_MAX:
        sentence = f"`{header}` must be 1 to {NAME_CHARS_MAX} printable characters."
        raise MCPError(types.INVALID_PARAMS, sentence)
    return name


def _unprotected(result: types.CallToolResult, lost: LockLost) -> types.CallToolResult:
    """Add a warning to the result of a call that lost its lock."""
    sentence = f"The tool was called, but others may have been called beside it: {lost}"
    warning = types.TextContent(type="text", text=sentence)
    return result.model_copy(update={"content": [warning, *result.content], "is_error": True})
