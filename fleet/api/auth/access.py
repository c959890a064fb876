"""Who is calling, and may they. Every endpoint that needs to know asks here.

While no token was ever created, everybody who can reach a loopback address may do everything; from
the first one on each request needs a token, or a ticket that stands for one. An address that others
can reach needs tokens from the start. What was closed stays closed while the process lives, also
when the store is wiped.

The table of tokens is as new as the request that is judged by it: a request waits for one look at
the store, which it shares with all that came before the look began. The bus reader brings it up to
date too, before any later entry (`fleet.api.bus.reader`).
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic

from starlette.datastructures import Headers, QueryParams
from starlette.types import Scope

from fleet.api.auth.rate_limit import Bucket
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.problems import Problem
from fleet.auth import tokens
from fleet.auth.tokens import ANYTHING, Rights, Token
from fleet.errors import BrokerUnavailable, FleetError
from fleet.store import Store
from routing.event import SENT_LOCALLY

#: An open API notices its first token after so long, at the latest.
OPEN_POLL_INTERVAL_S = 1.0
QUERY_TIMEOUT_S = 2.0
#: An open API that was open a moment ago does not keep people waiting for a broker that hangs.
OPEN_QUERY_TIMEOUT_S = 0.5
#: The key of an ASGI scope under which its caller is kept.
CALLER = "fleet.caller"
#: Names under which people put a token into a URL, where logs, proxies and browsers keep it.
_IN_URL = frozenset({"token", "access_token", "api_key", "authorization"})


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """Who sent a request."""

    token: Token | None  #: None where no token is asked for
    rights: Rights

    @property
    def sent_by(self) -> str:
        """The sender of this caller's events."""
        return self.token.sent_by if self.token else SENT_LOCALLY

    @property
    def body_bytes(self) -> int | None:
        """The largest body that is taken from this caller, if smaller than from others."""
        return self.token.body_bytes if self.token else None


ANYBODY = ApiCaller(None, ANYTHING)


def caller_of(scope: Scope) -> ApiCaller:
    """The caller of a request that the guard let in."""
    caller: ApiCaller = scope[CALLER]
    return caller


def rights_of(scope: Scope) -> Rights:
    """What the caller of a request may do."""
    return caller_of(scope).rights


class Access:
    """The table of tokens of one API process. Used in one event loop."""

    def __init__(
        self, store: Callable[[], Store], *, closed: bool = False, rate_per_s: float = 200.0
    ) -> None:
        """`closed`: a token is needed even while there is none."""
        self.closed = closed
        self.changed: Callable[[], None] = lambda: None  #: called when the table is another one
        self._store = store
        self._rate_per_s = rate_per_s
        self._lane = BoundedThreads("access", threads=1, backlog=256)
        self._tokens: Mapping[str, Token] = {}
        self._newest: str | None = None  #: the change that the table shows; None before the first
        self._looked_at = float("-inf")
        self._trouble = ""  #: why the last look found nothing
        self._looking = asyncio.Lock()
        self._buckets: dict[str, Bucket] = {}

    @property
    def newest(self) -> str | None:
        """Names the change of any token that the table shows last; None before the first look."""
        return self._newest

    @property
    def known(self) -> bool:
        """True when the store has said which tokens there are."""
        return self._newest is not None

    async def admit(self, scope: Scope, *, unsure: bool = False) -> ApiCaller:
        """The caller of a request, who is kept in its scope. Raises Problem 400, 401, 429 or 503.

        With `unsure` an open API admits people before the store could be asked once: then there is
        nothing to see yet, and `holds` decides again before there is.
        """
        query = QueryParams(scope["query_string"]) if scope["query_string"] else {}
        if _IN_URL.intersection(query):
            detail = "A token must not be in a URL: send it as `Authorization: Bearer`."
            raise Problem(HTTPStatus.BAD_REQUEST, "token-in-url", detail)
        text = _bearer(Headers(scope=scope))
        ticket = query.get("ticket")
        if text is not None:
            await self._look(monotonic())
            caller = self._caller(tokens.match(text, self._tokens))
        elif ticket is not None:
            caller = await self._redeem(ticket)
        else:
            await self._look(monotonic() - OPEN_POLL_INTERVAL_S, unsure=unsure and not self.closed)
            caller = self._caller(None) if self.closed else ANYBODY
        scope[CALLER] = caller
        if caller.token is not None:
            self._charge(caller.token)
        return caller

    async def current(self) -> None:
        """Let the table be as new as this call, where the store answers."""
        await self._look(monotonic(), unsure=True)

    def holds(self, caller: ApiCaller) -> bool:
        """False when this caller would not be admitted any more."""
        if caller.token is None:
            return not self.closed
        kept = self._tokens.get(caller.token.id)
        return kept is not None and kept.revoked_ms is None

    def charge_batch(self, caller: ApiCaller, events: int) -> None:
        """Count the events of a batch, whose request was counted as one."""
        if caller.token is not None:
            self._bucket(caller.token).overdraw(events - 1)

    def _charge(self, token: Token) -> None:
        bucket = self._bucket(token)
        wait_s = bucket.acquire()
        if wait_s > 0:
            detail = f"Your token may ask {bucket.per_s:g} times a second: slow down."
            status = HTTPStatus.TOO_MANY_REQUESTS
            raise Problem(status, "rate-limit", detail, retry_after_s=wait_s)

    def _bucket(self, token: Token) -> Bucket:
        if token.id not in self._buckets:
            self._buckets[token.id] = Bucket(token.rate_per_s or self._rate_per_s)
        return self._buckets[token.id]

    async def ticket(self, caller: ApiCaller) -> str:
        """A ticket for this caller. Raises BrokerUnavailable."""
        token_id = caller.token.id if caller.token else ""
        return await self._lane.run(lambda: tokens.issue_ticket(self._store(), token_id))

    def replace(self, newest: str, table: Mapping[str, Token]) -> None:
        """The table is this one now."""
        self._newest, self._tokens, self._trouble = newest, table, ""
        self.closed = self.closed or bool(table)
        self._buckets = {i: bucket for i, bucket in self._buckets.items() if i in table}
        self.changed()

    def _caller(self, token: Token | None) -> ApiCaller:
        if token is None:
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "unauthorized",
                "A token is needed: send a good one as `Authorization: Bearer`; "
                "`fleet token create` makes one.",
                headers={"WWW-Authenticate": 'Bearer realm="fleet"'},
            )
        return ApiCaller(token, Rights(frozenset(token.scopes)))

    async def _redeem(self, ticket: str) -> ApiCaller:
        token_id = await self._lane.run(lambda: tokens.use_ticket(self._store(), ticket))
        await self._look(monotonic())
        if token_id == "" and not self.closed:
            return ANYBODY
        token = self._tokens.get(token_id or "")
        return self._caller(token if token and token.revoked_ms is None else None)

    async def _look(self, not_before: float, *, unsure: bool = False) -> None:
        """Let the table be no older than `not_before`, or than the last try where that failed.

        With a table but without a store the table holds: who could revoke a token in one that is
        away? Raises BrokerUnavailable without either.
        """
        if self._trouble and self.known:  # what hangs is not asked for each request
            not_before = min(not_before, monotonic() - OPEN_POLL_INTERVAL_S)
        if self._looked_at < not_before:
            async with self._looking:
                if self._looked_at < not_before:
                    await self._look_now()
        if self._trouble and not (self.known or unsure):
            raise BrokerUnavailable(self._trouble)

    async def _look_now(self) -> None:
        began = monotonic()
        was_open = self.known and not self.closed
        try:
            async with asyncio.timeout(OPEN_QUERY_TIMEOUT_S if was_open else QUERY_TIMEOUT_S):
                newest, table = await self._lane.run(self._read)
        except (TimeoutError, FleetError) as error:
            self._trouble = str(error) or "The broker does not say who may do what: try again."
        else:
            self._trouble = ""
            if table is not None:
                self.replace(newest, table)
        self._looked_at = began

    def _read(self) -> tuple[str, Mapping[str, Token] | None]:
        """The newest change, and the table if it is another one; the table is never the older."""
        store = self._store()
        newest = tokens.last_change(store)
        return newest, None if newest == self._newest else tokens.read_all(store)


def _bearer(headers: Headers) -> str | None:
    scheme, _, text = headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None
