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
from dataclasses import dataclass
from typing import Any

from mcp import types
from mcp.shared.exceptions import MCPError
from starlette.datastructures import Headers
from starlette.types import Scope

from fleet.api.access import caller_of
from fleet.api.backend import Backend
from fleet.api.lanes import Busy
from fleet.api.mcp import SESSION_HEADER, TURN_HEADER
from fleet.api.mcp.own import id_of
from fleet.locks import ConcurrencyGuard, OperationClassifier, SessionLock, TurnRWLock
from fleet.locks.errors import LockLost
from fleet.locks.guard import Operation
from fleet.tokens import Rights
from fleet.toolservers.errors import ToolServerError
from fleet.toolservers.section import Tool
from fleet.toolservers.server import ToolServer
from routing.event import NAME_CHARS_MAX

#: Between the name of a set and the name of its tool.
MARK = "__"
#: Calls of one process that wait for their locks or their servers; each may cost a thread.
CALLS_MAX = 256
#: Of a session that its client does not name.
ONE_TURN = "all calls"
SESSION_META, TURN_META = "fleet/session", "fleet/turn"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """One tool of a set."""

    tools: str  #: the set
    name: str  #: as its server calls it


class Passed:
    """The tool servers of one API process."""

    def __init__(self, backend: Backend) -> None:
        self._backend, settings = backend, backend.settings
        self._calls = 0  #: under way
        self._terms: dict[str, Tool] = {name: settings.tools[name] for name in settings.mcp.tools}
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

    def find(self, name: str) -> Found | None:
        """Whose tool this is; None for a name that no set begins."""
        # A set's name may hold the mark itself: the longest that fits is meant.
        for tools in sorted(self._servers, key=len, reverse=True):
            if name.startswith(f"{tools}{MARK}"):
                return Found(tools, name.removeprefix(f"{tools}{MARK}"))
        return None

    async def call(
        self, found: Found, arguments: Mapping[str, Any], scope: Scope, meta: Mapping[str, Any]
    ) -> types.CallToolResult:
        """Call a tool under its locks. Raises Busy, locks.Busy, StoreDown, ToolServerError."""
        if self._calls >= CALLS_MAX:
            raise Busy(f"{CALLS_MAX} tools are being called already: try again.")
        server, terms = self._servers[found.tools], self._terms[found.tools]
        result: types.CallToolResult | None = None
        self._calls += 1
        try:
            async with self._locks(found, scope, meta):
                result = await server.call_tool(
                    found.name, dict(arguments), timeout_s=terms.timeout_s
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
            told = await self._servers[name].list_tools()
        except ToolServerError as error:
            _log.warning("mcp.tools: %s is left out of a list: %s", name, error)
            return []
        return [one.model_copy(update={"name": f"{name}{MARK}{one.name}"}) for one in told]

    def _locks(self, found: Found, scope: Scope, meta: Mapping[str, Any]) -> Operation:
        session, turn = _place(scope, meta)
        terms = self._backend.settings.locks
        times = (terms.session_ttl_s, terms.acquire_timeout_s)
        # Not behind the breaker: locks have a way of their own to be refused.
        store = (self._backend.unguarded or self._backend.store)()
        guard = ConcurrencyGuard(
            SessionLock(store, session, turn, *times),
            # Turns of two sessions may have the same name.
            TurnRWLock(store, f"{turn} of {session}", *times),
            self._classifiers[found.tools],
            terms.on_store_down,
        )
        return guard.operation(found.name)


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
