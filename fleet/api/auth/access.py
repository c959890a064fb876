"""Authentication: the caller of each request and its rights.

Until the first token exists, everybody who can reach a loopback address may do everything. From
then on each request needs a token, or a ticket that stands for a token. An address that others can
reach needs tokens from the start. An API that was closed stays closed while the process lives, even
when the store is wiped.

The token table is at least as new as the request that it authenticates: a request waits for one
query of the store. All requests that arrive before the query begins share its result. The bus
reader updates the table too, before any later entry (`fleet.api.bus.reader`).
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from fleet.api.auth.rate_limit import Bucket
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.problems import Problem
from fleet.auth import tokens
from fleet.auth.tokens import ANYTHING, Rights, Token
from fleet.errors import BrokerUnavailable, FleetError
from fleet.store import Store
from routing.event import SENT_LOCALLY

#: The longest time until an open API notices its first token.
OPEN_POLL_INTERVAL_S = 1.0
QUERY_TIMEOUT_S = 2.0
#: While the API is open, a hanging broker delays a request no longer than this.
OPEN_QUERY_TIMEOUT_S = 0.5
#: The key of the caller in an ASGI scope.
CALLER = "fleet.caller"
#: What a browser opens without a header, and a ticket opens; anything else takes the token itself.
_STREAMS = re.compile(r"/bus|/ws|/dispatches/[^/]+/stream")
#: Query parameters that look like a token. A token in a URL leaks into logs and browsers.
_IN_URL = frozenset({"token", "access_token", "api_key", "authorization"})
#: Headers of a 401.
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="fleet"'}


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """The caller of a request."""

    token: Token | None  #: None where no token is needed
    rights: Rights

    @property
    def sent_by(self) -> str:
        """The sender of this caller's events."""
        return self.token.sent_by if self.token else SENT_LOCALLY

    @property
    def body_bytes(self) -> int | None:
        """The caller's own limit for a body; None: the general limit holds."""
        return self.token.body_bytes if self.token else None


ANYBODY = ApiCaller(None, ANYTHING)


def caller_of(scope: Scope) -> ApiCaller:
    """The caller of an admitted request."""
    caller: ApiCaller = scope[CALLER]
    return caller


def rights_of(scope: Scope) -> Rights:
    """The rights of the caller of a request."""
    return caller_of(scope).rights


class Access:
    """The token table of one API process. Used in one event loop."""

    def __init__(
        self, store: Callable[[], Store], *, closed: bool = False, rate_per_s: float = 200.0
    ) -> None:
        """`closed`: every request needs a token, even while none exists."""
        self.closed = closed
        self.changed: Callable[[], None] = lambda: None  #: called after each change of the table
        self._store = store
        self._rate_per_s = rate_per_s
        self._threads = BoundedThreads("access", threads=1, backlog=256)
        self._tokens: Mapping[str, Token] = {}
        self._newest: str | None = None  #: the newest change in the table
        self._queried_at = float("-inf")
        self._failure = ""  #: of the last query, where it failed
        self._querying = asyncio.Lock()
        self._buckets: dict[str, Bucket] = {}

    @property
    def newest(self) -> str | None:
        """The id of the newest change in the table; None before the first query."""
        return self._newest

    @property
    def known(self) -> bool:
        """True when the table has been read once."""
        return self._newest is not None

    async def admit(self, scope: Scope, *, tentative: bool = False) -> ApiCaller:
        """Authenticate a request and record its caller. Raises Problem or BrokerUnavailable.

        With `tentative` an API that is not closed admits everybody until the first query succeeds.
        There is nothing to see before, and `admits` decides again.
        """
        query = QueryParams(scope["query_string"]) if scope["query_string"] else {}
        if _IN_URL.intersection(query):
            detail = "A token must not be in a URL: send it as `Authorization: Bearer`."
            raise Problem(HTTPStatus.BAD_REQUEST, "token-in-url", detail)
        text = _bearer(Headers(scope=scope))
        ticket = query.get("ticket")
        if text is not None:
            await self._require_fresh(monotonic())
            if tokens.was_revoked(text, self._tokens):
                raise _revoked()
            caller = self._caller(tokens.match(text, self._tokens))
        elif ticket is not None:
            if not _STREAMS.fullmatch(scope["path"]):
                raise _unauthorized(
                    "A ticket opens /bus, /ws and the stream of a dispatch only: send the token "
                    "itself as `Authorization: Bearer`."
                )
            caller = await self._redeem(ticket)
        else:
            await self._require_fresh(
                monotonic() - OPEN_POLL_INTERVAL_S, tentative=tentative and not self.closed
            )
            caller = self._caller(None) if self.closed else ANYBODY
        scope[CALLER] = caller
        if caller.token is not None:
            self._charge(caller.token)
        return caller

    async def refresh(self) -> None:
        """Make the table as new as this call, where the store answers."""
        await self._require_fresh(monotonic(), tentative=True)

    def admits(self, caller: ApiCaller) -> bool:
        """False for a caller whose access has ended since it was admitted."""
        if caller.token is None:
            return not self.closed
        token = self._tokens.get(caller.token.id)
        return token is not None and token.revoked_ms is None

    def charge_batch(self, caller: ApiCaller, events: int) -> None:
        """Charge the further events of a batch; `admit` has charged one."""
        if caller.token is not None:
            self._bucket(caller.token).overdraw(events - 1)

    def _charge(self, token: Token) -> None:
        bucket = self._bucket(token)
        wait_s = bucket.acquire()
        if wait_s > 0:
            detail = f"Your token allows {bucket.per_s:g} requests a second: slow down."
            status = HTTPStatus.TOO_MANY_REQUESTS
            raise Problem(status, "rate-limit", detail, retry_after_s=wait_s)

    def _bucket(self, token: Token) -> Bucket:
        if token.id not in self._buckets:
            self._buckets[token.id] = Bucket(token.rate_per_s or self._rate_per_s)
        return self._buckets[token.id]

    async def issue_ticket(self, request: Request) -> Response:
        """`POST /tickets`: a ticket for the caller, valid for one stream within half a minute.

        A browser puts it into the URL of a WebSocket or an EventSource, which cannot send a header.
        URLs are logged on their way; a used ticket is worthless.
        """
        token = caller_of(request.scope).token
        token_id = token.id if token else ""
        ticket = await self._threads.run(lambda: tokens.issue_ticket(self._store(), token_id))
        return JSONResponse(
            {"ticket": ticket, "expires_in_s": tokens.TICKET_S},
            int(HTTPStatus.CREATED),
        )

    def replace(self, newest: str, table: Mapping[str, Token]) -> None:
        """Replace the table."""
        self._newest, self._tokens, self._failure = newest, table, ""
        self.closed = self.closed or bool(table)
        self._buckets = {i: bucket for i, bucket in self._buckets.items() if i in table}
        self.changed()

    def _caller(self, token: Token | None) -> ApiCaller:
        if token is None:
            raise _unauthorized(
                "A valid token is needed: send it as `Authorization: Bearer`; "
                "`fleet token create` makes one."
            )
        return ApiCaller(token, Rights(frozenset(token.scopes)))

    async def _redeem(self, ticket: str) -> ApiCaller:
        token_id = await self._threads.run(lambda: tokens.use_ticket(self._store(), ticket))
        await self._require_fresh(monotonic())
        if token_id == "" and not self.closed:
            return ANYBODY
        token = self._tokens.get(token_id or "")
        return self._caller(token if token and token.revoked_ms is None else None)

    async def _require_fresh(self, not_before: float, *, tentative: bool = False) -> None:
        """Query the store unless the table is as new as `not_before`.

        After a failed query the last table stays valid: nobody can revoke a token while the store
        is down. Raises BrokerUnavailable when there is no table yet.
        """
        if self._failure and self.known:  # do not query a hanging store for each request
            not_before = min(not_before, monotonic() - OPEN_POLL_INTERVAL_S)
        if self._queried_at < not_before:
            async with self._querying:
                if self._queried_at < not_before:
                    await self._query()
        if self._failure and not (self.known or tentative):
            raise BrokerUnavailable(self._failure)

    async def _query(self) -> None:
        began = monotonic()
        was_open = self.known and not self.closed
        try:
            async with asyncio.timeout(OPEN_QUERY_TIMEOUT_S if was_open else QUERY_TIMEOUT_S):
                newest, table = await self._threads.run(self._read)
        except (TimeoutError, FleetError) as error:
            self._failure = str(error) or "The tokens cannot be read in time: try again."
        else:
            self._failure = ""
            if table is not None:
                self.replace(newest, table)
        self._queried_at = began

    def _read(self) -> tuple[str, Mapping[str, Token] | None]:
        """The newest change, and the table where it has changed. The table is the newer of both."""
        store = self._store()
        newest = tokens.last_change(store)
        return newest, None if newest == self._newest else tokens.read_all(store)


def _unauthorized(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, "unauthorized", detail, headers=_CHALLENGE)


def _revoked() -> Problem:
    detail = "This token was revoked: use another."
    return Problem(HTTPStatus.UNAUTHORIZED, "token-revoked", detail, headers=_CHALLENGE)


def _bearer(headers: Headers) -> str | None:
    scheme, _, text = headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None
