"""Middleware that rejects requests of foreign pages and of callers without access.

A browser sends the requests of any page, also from inside the network. A request that changes
something is therefore rejected when it comes from a page of another origin. While no token is
needed, only addresses and local names are served: a public DNS name may have been pointed at this
machine (DNS rebinding). Once tokens are needed, this check is off: a foreign page has no token.
"""

import ipaddress
import re
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fleet.api.auth.access import Access
from fleet.api.request.problems import Problem, as_problem
from fleet.errors import FleetError

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Paths without authentication: probes, the OpenAPI document, and the page that requests a token.
_PUBLIC = re.compile(r"/|/livez|/readyz|/openapi\.json|/console/.*")
#: Paths authenticated by a signature, which no foreign page can make.
_SIGNED = re.compile(r"/callbacks/[^/]+")
#: Paths that admit callers before the first query for tokens: they show nothing then.
_TENTATIVE = frozenset({"/health", "/metrics", "/bus", "/ws"})
#: Paths that need any token, or check scopes themselves. All others need the scope `admin`, so a
#: forgotten path is closed.
_ANY_TOKEN = re.compile(
    r"/health|/metrics|/mcp/?|/tickets|/events(/.+)?|/bus|/ws"
    r"|/dispatches(/[^/]+(/(cancel|retry|approve|reject|stream))?)?"
    r"|/agents(/[^/]+(/(pause|resume|drain))?)?"
)


class AccessMiddleware:
    """An ASGI middleware. `host` is the configured name, which is always served."""

    def __init__(self, app: ASGIApp, host: str, access: Access) -> None:
        self._app = app
        self._host = host.lower()
        self._access = access
        self._known: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request or reject it."""
        if scope["type"] in ("http", "websocket") and not _SIGNED.fullmatch(scope["path"]):
            try:
                self._check_page(scope)
                await self._check_caller(scope)
            except (Problem, FleetError) as error:
                await as_problem(error).to_response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check_caller(self, scope: Scope) -> None:
        path = scope["path"]
        if _PUBLIC.fullmatch(path):
            return
        caller = await self._access.admit(scope, tentative=path in _TENTATIVE)
        if not _ANY_TOKEN.fullmatch(path):
            caller.rights.need_admin()

    def _check_page(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if host and host not in self._known and not self._access.closed:
            if not self._is_local(host):
                detail = "`Host` is a public name: use the address, or a name of the local network."
                raise Problem(HTTPStatus.FORBIDDEN, "foreign-host", detail)
            if len(self._known) < 16:  # a cache: few names are in use
                self._known.add(host)
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
        if origin is not None and changes and urlsplit(origin.lower()).netloc != host:
            detail = "`Origin` is another site: its pages must not use this API."
            raise Problem(HTTPStatus.FORBIDDEN, "foreign-origin", detail)

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
