"""The door: nobody passes whose request comes from a foreign page or who may not call at all.

A browser sends the requests of any page, from inside the network. So a request that changes
something must not come from a page of another origin; and where no token is asked for, a name that
is public DNS may have been pointed at this machine (DNS rebinding): only addresses and local names
are served. Where one is asked for, a foreign page has none.
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
#: What anybody may see who reaches the port: probes, the description, and the page that asks for a
#: token.
_PUBLIC = re.compile(r"/|/livez|/readyz|/openapi\.json|/console/.*")
#: What is let in by its signature: no page can make one, and no token is needed.
_SIGNED = re.compile(r"/callbacks/[^/]+")
#: What admits people before the store has said whether there are tokens: it shows nothing then.
_UNSURE = frozenset({"/health", "/metrics", "/bus", "/ws"})
#: What any token opens, or checks its scopes by itself. Everything else is for admins, so that a
#: path nobody thought of is closed.
_ANY_TOKEN = re.compile(
    r"/health|/metrics|/mcp|/tickets|/events(/.+)?|/bus|/ws"
    r"|/dispatches(/[^/]+(/(cancel|retry|approve|reject|stream))?)?"
    r"|/agents(/[^/]+(/(pause|resume|drain))?)?"
)


class AccessMiddleware:
    """An ASGI middleware. `host` is the configured one, which is served whatever it is called."""

    def __init__(self, app: ASGIApp, host: str, access: Access) -> None:
        self._app = app
        self._host = host.lower()
        self._access = access
        self._known: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on or refuse it."""
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
        caller = await self._access.admit(scope, unsure=path in _UNSURE)
        if not _ANY_TOKEN.fullmatch(path):
            caller.rights.need_admin()

    def _check_page(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if host and host not in self._known and not self._access.closed:
            if not self._is_local(host):
                detail = "`Host` is a public name: use the address, or a name of the local network."
                raise Problem(HTTPStatus.FORBIDDEN, "foreign-host", detail)
            if len(self._known) < 16:  # few names are in use; the check is skipped for them
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
