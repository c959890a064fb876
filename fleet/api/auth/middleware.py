"""Middleware that rejects requests of foreign pages and of callers without access.

A browser sends the requests of any page, also from inside the network. A request that changes
something is therefore rejected when it comes from a page of another origin. While no token is
needed, only addresses, `localhost` and configured names are served: any other name may have been
pointed at this machine (DNS rebinding). Once tokens are needed, this check is off: a foreign page
has no token.
"""

import re
from collections.abc import Collection
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fleet.api.auth.access import Access
from fleet.api.request.problems import Problem, as_problem
from fleet.errors import FleetError
from fleet.formats.host_names import SAFE_METHODS, is_allowed, is_foreign_origin

#: Paths without authentication: probes, the OpenAPI document, and the pages that request a token.
_PUBLIC = re.compile(r"/|/livez|/readyz|/openapi\.json|/docs|/(console|docs)/.*")
#: Paths authenticated by a signature, which no foreign page can make.
_SIGNED = re.compile(r"/callbacks/[^/]+")
#: Paths that admit callers before the first query for tokens: they show nothing then.
_TENTATIVE = frozenset({"/health", "/metrics", "/bus", "/ws"})
#: Paths that need any token, or check scopes themselves. All others need the scope `admin`, so a
#: forgotten path is closed.
_ANY_TOKEN = re.compile(
    r"/health|/metrics|/mcp/?|/tickets|/events(/.+)?|/bus|/ws|/sessions|/targets|/history"
    r"|/dispatches(/[^/]+(/(cancel|retry|resend|approve|reject|stream))?)?"
    r"|/agents(/[^/]+(/(pause|resume|drain|cancel|move))?)?|/alerts(/[^/]+/(silence|unsilence|ack))?"
    r"|/route|/chains/[^/]+|/bus/entries|/dead-letters/(purge|replay)"
)


class AccessMiddleware:
    """An ASGI middleware. `names` are the configured names, which are always served."""

    def __init__(self, app: ASGIApp, names: Collection[str], access: Access) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)
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
            if not is_allowed(host, self._names):
                detail = (
                    "`Host` is an unknown name: use the address, or add it to api.allowed_hosts."
                )
                raise Problem(HTTPStatus.FORBIDDEN, "foreign-host", detail)
            if len(self._known) < 16:  # a cache: few names are in use
                self._known.add(host)
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if changes and is_foreign_origin(origin, host):
            detail = "`Origin` is another site: its pages must not use this API."
            raise Problem(HTTPStatus.FORBIDDEN, "foreign-origin", detail)
