"""Dispatches over HTTP: find, get, cancel, retry, approve and reject."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import ApiCaller, caller_of, rights_of
from fleet.api.auth.visible import check_operable, find_id, not_there
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import check_names, choices, flag, number, readable_choices, texts
from fleet.api.request.problems import Problem, bad_parameter
from fleet.api.request.small_body import by_in, read_object, reason_in
from fleet.config.settings import Settings
from fleet.errors import BrokerUnavailable
from fleet.intake.spool.query import query
from fleet.ledger import State, ValkeyLedger, operations, removed, search, views
from fleet.ledger.search import WORDS_CHARS_MAX, Wanted
from fleet.runtime import Runtime
from routing import Verdict

LIMIT_DEFAULT = 20
#: Parameters that narrow a search by what a record holds.
_WANTED = ("words", "session", "source", "model")
_REASON_DEFAULT = "requested over HTTP"
_BY_DEFAULT = "somebody over HTTP"


class Dispatches:
    """The endpoints under `/dispatches`."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def find(self, request: Request) -> Response:
        """A page of dispatches, newest first; with `content=1` each has its text's first line."""
        query = request.query_params
        check_names(query, "agent", "state", "limit", "cursor", "content", *_WANTED)
        rights = rights_of(request.scope)
        agents = readable_choices(query, "agent", await self._names(query), rights)
        if len(agents) > 1:
            raise bad_parameter("agent", "must be given once")
        cursor = query.get("cursor")
        if cursor is not None and not (
            cursor.isascii() and cursor.isdecimal() and len(cursor) < 17
        ):
            raise bad_parameter("cursor", "must be the `cursor` of the page before")
        find = partial(
            search.search,
            wanted=Wanted(**{name: _part(query, name) for name in _WANTED}),
            content=flag(query, "content"),
            reads=rights.reads,
            agent=next(iter(agents), None),
            states=sorted(choices(query, "state", [str(state) for state in State])),
            limit=number(query, "limit", LIMIT_DEFAULT, 1, views.LIST_MAX),
            cursor=cursor,
        )
        page = await self._reads.run(lambda: find(self._runtime.store))
        # A page may be shorter than requested; its cursor is valid all the same.
        return JSONResponse({"dispatches": page.dispatches, "cursor": page.cursor})

    async def _names(self, query: QueryParams) -> frozenset[str]:
        """The configured agents and people, and with another name asked for, removed ones."""
        settings = self._runtime.settings
        known = frozenset((*settings.agents, *settings.people()))
        if texts(query, "agent") <= known:
            return known
        return known | await self._reads.run(lambda: removed.names(self._runtime.store))

    async def get(self, request: Request) -> Response:
        """One dispatch; its content only with `?content=1`."""
        check_names(request.query_params, "content")
        content = flag(request.query_params, "content")
        caller = caller_of(request.scope)
        record = await self._reads.run(lambda: self._query(caller, _id(request), content))
        rights = caller.rights
        if record is None or not rights.reads(record["agent"]):
            raise not_there()
        if "earlier" in record:
            record["earlier"] = [row for row in record["earlier"] if rights.reads(row["agent"])]
        return JSONResponse(record)

    async def cancel(self, request: Request) -> Response:
        """Cancel a dispatch: at once when it waits (200), at its next step when it runs (202).

        With `now=1` a running turn is stopped at once too (200).
        """
        rights_of(request.scope).need_operate()
        check_names(request.query_params, "now")
        reason, now = await _reason(request), flag(request.query_params, "now")
        moved = await self._operate(request, partial(operations.cancel, reason=reason, now=now))
        done = moved["state"] is State.CANCELLED
        return JSONResponse(moved, int(HTTPStatus.OK if done else HTTPStatus.ACCEPTED))

    async def retry(self, request: Request) -> Response:
        """Try a dispatch again: a retrying one now, a dead one as a new generation."""
        rights_of(request.scope).need_operate()
        return JSONResponse(await self._operate(request, operations.replay))

    async def approve(self, request: Request) -> Response:
        """Approve a parked dispatch."""
        return await self._decide(request, Verdict.APPROVE)

    async def reject(self, request: Request) -> Response:
        """Reject a parked dispatch, with a reason."""
        return await self._decide(request, Verdict.REJECT)

    async def _decide(
        self,
        request: Request,
        verdict: Literal[Verdict.APPROVE, Verdict.REJECT],
    ) -> Response:
        rights_of(request.scope).need_operate()
        body = await read_object(request, "reason", "by")
        reason = reason_in(body, "")
        if verdict is Verdict.REJECT and not reason:
            detail = "A rejection needs a `reason`, which the sender of the event is told."
            raise Problem(HTTPStatus.BAD_REQUEST, "invalid-reason", detail)
        by = by_in(request, body, _BY_DEFAULT)
        decide = partial(operations.decide, verdict=verdict, by=by, reason=reason)
        return JSONResponse({**await self._operate(request, decide), "by": by})

    async def _operate(
        self, request: Request, call: Callable[[ValkeyLedger, Settings, str], State]
    ) -> dict[str, Any]:
        """Call an operation on a dispatch that the caller may see. Raises Unknown."""
        runtime, caller = self._runtime, caller_of(request.scope)

        def operate() -> dict[str, Any]:
            dispatch_id = find_id(runtime.store, caller, _id(request))
            check_operable(runtime.store, caller, dispatch_id)
            state = call(runtime.ledger, runtime.settings, dispatch_id)
            return {"dispatch_id": dispatch_id, "state": state}

        return await self._reads.run(operate)

    def _query(self, caller: ApiCaller, dispatch_id: str, content: bool) -> dict[str, Any] | None:
        try:
            store = self._runtime.store
            return views.get(store, find_id(store, caller, dispatch_id), content=content)
        except BrokerUnavailable:
            # The dispatch may have run from the spool.
            record = query(self._runtime.spool, dispatch_id, content=content)
            if record is None:
                raise
            return record


def _part(query: QueryParams, name: str) -> str:
    """A text that is searched for; empty when it is absent."""
    text = query.get(name, "")
    if len(text) > WORDS_CHARS_MAX:
        raise bad_parameter(name, f"must have at most {WORDS_CHARS_MAX} characters")
    return text


def _id(request: Request) -> str:
    return str(request.path_params["dispatch_id"])


async def _reason(request: Request) -> str:
    """The `reason` of an optional JSON body."""
    return reason_in(await read_object(request, "reason"), _REASON_DEFAULT)
