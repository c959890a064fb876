"""The running calls of one API process, which `notifications/cancelled` can end.

The protocol names a call by the id that its client chose, so two clients may choose the same. Here
a call belongs to the token, the machine, the session and the turn that its request names. Where
two such calls run under one id nobody knows which is meant, and neither is cancelled.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from fleet.api.auth.access import caller_of
from fleet.api.mcp import SESSION_HEADER, TURN_HEADER
from fleet.api.mcp.fleet_tools import caller_id

CANCELLED = "notifications/cancelled"

Call = tuple[str, ...]


class RunningCalls:
    """Used in one event loop."""

    def __init__(self) -> None:
        self._calls: dict[Call, list[asyncio.Event]] = {}

    @contextmanager
    def call(self, scope: Scope, message: Mapping[str, Any]) -> Iterator[asyncio.Event]:
        """The event that is set when the client cancels its request, while this context lasts."""
        cancelled = asyncio.Event()
        name = _name(scope, message["id"]) if "id" in message else None
        if name is not None:
            self._calls.setdefault(name, []).append(cancelled)
        try:
            yield cancelled
        finally:
            if name is not None:
                self._calls[name].remove(cancelled)
                if not self._calls[name]:
                    del self._calls[name]

    def cancel(self, scope: Scope, message: Mapping[str, Any]) -> None:
        """Cancel the call that `message` names, if it is such a notification."""
        params = message.get("params")
        if message.get("method") != CANCELLED or not isinstance(params, dict):
            return
        found = self._calls.get(_name(scope, params.get("requestId")), ())
        if len(found) == 1:
            found[0].set()


def _name(scope: Scope, request_id: Any) -> Call:
    headers = Headers(scope=scope)
    session, turn = headers.get(SESSION_HEADER, ""), headers.get(TURN_HEADER, "")
    host = (scope.get("client") or ("",))[0]
    # As JSON `1` and `"1"` are two ids; some clients send the one for the other.
    return (caller_id(caller_of(scope).token), host, session, turn, str(request_id))
