"""The tools of the tool servers that `[mcp]` names, called under the locks of session and turn.

A session is busy with one turn at a time; within a turn, reads run beside each other and writes
alone. A client says which it works for, by header or in `_meta`; one that names no session is a
session with a single turn, so that its reads need not wait for each other. One that names a session
only is a turn by each request.
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
from fleet.api.mcp.fleet_tools import id_of
from fleet.api.request.bounded_threads import ThreadsBusy
from fleet.auth.tokens import Rights
from fleet.config.tools import ToolsConfig
from fleet.locks import ConcurrencyGuard, OperationClassifier, SessionLock, TurnRWLock
from fleet.locks.errors import LockLost
from fleet.locks.guard import Operation
from fleet.runtime import Runtime
from fleet.tools.mcp.errors import ToolServerError
from fleet.tools.mcp.names import told_names
from fleet.tools.mcp.server import ToolServer
from routing.event import NAME_CHARS_MAX

#: Between the name of a set and the name of its tool.
MARK = "__"
#: Calls of one process that wait for their locks or their servers; each may cost a thread.
CALLS_MAX = 256
#: Of a session that its client does not name.
ONE_TURN = "all calls"
SESSION_META, TURN_META = "fleet/session", "fleet/turn"

_log = logging.getLogger(__name__)


class ProxiedTools:
    """The tool servers of one API process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, settings = runtime, runtime.settings
        self._calls = 0  #: under way
        #: By set: the names that clients are told, and its server's own.
        self._own: dict[str, dict[str, str]] = {}
        self._terms: dict[str, ToolsConfig] = {
            name: settings.tools[name] for name in settings.mcp.tools
        }
        self._servers = {name: ToolServer(name, terms) for name, terms in self._terms.items()}
        self._classifiers = {
            name: OperationClassifier(terms.classes, f"tools.{name}.classes")
            for name, terms in self._terms.items()
        }

    async def tools(self, rights: Rights) -> list[types.Tool]:
        """What a caller may use; a server that does not answer is left out, and logged."""
        names = [name for name in self._servers if rights.uses(name)]
        listed = await asyncio.gather(*map(self._listed, names))
        return [tool for tools in listed for tool in tools]

    def set_of(self, name: str) -> str | None:
        """Whose tool this is, if it is any; None for a name that no set begins."""
        # A set's name may hold the mark itself: the longest that fits is meant.
        sets = sorted(self._servers, key=len, reverse=True)
        return next((one for one in sets if name.startswith(f"{one}{MARK}")), None)

    async def call(
        self,
        tools: str,
        name: str,
        arguments: Mapping[str, Any],
        scope: Scope,
        meta: Mapping[str, Any],
    ) -> types.CallToolResult:
        """Call a tool of a set under its locks, by the name that clients are told.

        Raises Busy, locks.Busy, StoreDown, ToolServerError.
        """
        if self._calls >= CALLS_MAX:
            raise ThreadsBusy(f"{CALLS_MAX} tools are being called already: try again.")
        self._calls += 1
        result: types.CallToolResult | None = None
        try:
            own = await self._own_name(tools, name)
            async with self._locks(tools, own, scope, meta):
                result = await self._servers[tools].call_tool(
                    own, dict(arguments), timeout_s=self._terms[tools].timeout_s
                )
        except LockLost as lost:
            if result is None:
                raise
            return _unprotected(result, lost)
        finally:
            self._calls -= 1
        return result

    async def close(self) -> None:
        """End the servers."""
        await asyncio.gather(*(server.close() for server in self._servers.values()))

    async def _listed(self, name: str) -> list[types.Tool]:
        try:
            return await self._told(name)
        except ToolServerError as error:
            _log.warning("mcp.tools: %s is left out of a list: %s", name, error)
            return []

    async def _told(self, tools: str) -> list[types.Tool]:
        """A set's tools, by the names that clients are told. Raises ToolServerError."""
        found = {f"{tools}{MARK}{one.name}": one for one in await self._servers[tools].list_tools()}
        told = told_names(found)
        self._own[tools] = {name: found[full].name for name, full in told.items()}
        return [found[full].model_copy(update={"name": name}) for name, full in told.items()]

    async def _own_name(self, tools: str, name: str) -> str:
        if tools not in self._own:
            await self._told(tools)
        # A tool may be newer than the list, and may have gone: its server knows.
        return self._own[tools].get(name, name.removeprefix(f"{tools}{MARK}"))

    def _locks(self, tools: str, own: str, scope: Scope, meta: Mapping[str, Any]) -> Operation:
        session, turn = _place(scope, meta)
        terms = self._runtime.settings.locks
        times = (terms.session_ttl_s, terms.acquire_timeout_s)
        # Not behind the breaker: locks have a way of their own to be refused.
        store = self._runtime.unguarded_store
        guard = ConcurrencyGuard(
            SessionLock(store, session, turn, *times),
            # Turns of two sessions may have the same name.
            TurnRWLock(store, f"{turn} of {session}", *times),
            self._classifiers[tools],
            terms.on_store_down,
        )
        return guard.operation(own)


def _place(scope: Scope, meta: Mapping[str, Any]) -> tuple[str, str]:
    """The session and the turn that a request is of."""
    headers, mine = Headers(scope=scope), f"mcp:{id_of(caller_of(scope).token)}"
    session = _name(headers, SESSION_HEADER, meta, SESSION_META)
    turn = _name(headers, TURN_HEADER, meta, TURN_META)
    if session is None:
        return mine, turn or ONE_TURN
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
    """What was done while others may have been let in."""
    sentence = f"The tool was called, but others may have been called beside it: {lost}"
    note = types.TextContent(type="text", text=sentence)
    return result.model_copy(update={"content": [note, *result.content], "is_error": True})
