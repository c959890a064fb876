"""Keeps web pages of other sites away: a browser sends their requests from inside the network.

The API needs no login on loopback, so two checks stand in its place. A name that is public DNS may
have been pointed at this machine (DNS rebinding): only addresses and local names are served. And a
request that changes something must not come from a page of another origin.
"""

import ipaddress
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fleet.api.problems import Problem

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """An ASGI middleware. `host` is the configured one, which is served whatever it is called."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host.lower()
        self._known: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on or refuse it with 403."""
        if scope["type"] in ("http", "websocket"):
            problem = self._objection(scope)
            if problem is not None:
                await problem.to_response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _objection(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if host and host not in self._known:
            if not self._is_local(host):
                detail = "`Host` is a public name: use the address, or a name of the local network."
                return Problem(HTTPStatus.FORBIDDEN, "foreign-host", detail)
            if len(self._known) < 16:  # few names are in use; the check is skipped for them
                self._known.add(host)
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
        if origin is not None and changes and urlsplit(origin.lower()).netloc != host:
            detail = "`Origin` is another site: its pages must not use this API."
            return Problem(HTTPStatus.FORBIDDEN, "foreign-origin", detail)
        return None

    def _is_local(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == self._host or "." not in name.rstrip(".") or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
