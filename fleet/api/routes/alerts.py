"""The alerts over HTTP: list, silence, unsilence and acknowledge."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import rights_of
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import check_names, flag
from fleet.api.request.problems import Problem
from fleet.api.request.small_body import by_in, read_object
from fleet.auth.tokens import EVERYONE, Rights
from fleet.ops.alerts import listing, silences
from fleet.ops.alerts.silences import COMMENT_CHARS_MAX, SILENCE_S_MAX, AlertTarget
from fleet.runtime import Runtime
from fleet.store import Store

#: Who says so, where no token is needed and the body names nobody.
_BY_DEFAULT = "http"


class AlertRoutes:
    """The endpoints under `/alerts`."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def find(self, request: Request) -> Response:
        """The open alerts that the caller may see; with `all` those that are over, too."""
        check_names(request.query_params, "all")
        past, rights = flag(request.query_params, "all"), rights_of(request.scope)

        def read() -> dict[str, Any]:
            found = listing.read(self._runtime.store, self._runtime.settings)
            return found.to_wire(lambda agent: _sees(rights, agent), past=past)

        return JSONResponse(await self._reads.run(read))

    async def silence(self, request: Request) -> Response:
        """Send an alert, or all of a name, to nobody for a while."""
        body = await read_object(request, "for_s", "by", "comment")
        for_s, by, comment = _span(body), by_in(request, body, _BY_DEFAULT), _comment(body)
        return await self._mark(
            request,
            "silenced",
            lambda store, target: silences.silence(
                store, target, for_s=for_s, by=by, comment=comment
            ),
            by,
        )

    async def unsilence(self, request: Request) -> Response:
        """End a silence."""
        await read_object(request)
        return await self._mark(request, "unsilenced", silences.unsilence)

    async def ack(self, request: Request) -> Response:
        """Acknowledge an open alert."""
        body = await read_object(request, "by", "comment")
        by, comment = by_in(request, body, _BY_DEFAULT), _comment(body)
        return await self._mark(
            request,
            "acknowledged",
            lambda store, target: silences.acknowledge(store, target, by=by, comment=comment),
            by,
        )

    async def _mark(
        self,
        request: Request,
        state: str,
        mark: Callable[[Store, AlertTarget], None],
        by: str | None = None,
    ) -> Response:
        """Mark the alert of the path, which the caller must be able to see."""
        rights, which = rights_of(request.scope), str(request.path_params["alert"])
        rights.need_operate()
        store = self._runtime.store

        def call() -> AlertTarget:
            found = listing.read(store, self._runtime.settings).targets()
            # Nobody learns of an alert that it may not see.
            visible = {known: one for known, one in found.items() if _sees(rights, one.agent)}
            target = silences.resolve(which, visible)
            if not target.id:
                rights.need_read(EVERYONE)
            mark(store, target)
            return target

        target = await self._reads.run(call)
        return JSONResponse(target.marked(state, by))


def _sees(rights: Rights, agent: str) -> bool:
    return rights.reads(agent) if agent else rights.reads_all


def _span(body: dict[str, Any]) -> float:
    for_s = body.get("for_s")
    if isinstance(for_s, bool) or not isinstance(for_s, int | float):
        raise _bad("`for_s` is needed: the seconds of the silence.")
    if not 1 <= for_s <= SILENCE_S_MAX:
        raise _bad(f"`for_s` must be from 1 to {SILENCE_S_MAX:g} seconds.")
    return float(for_s)


def _comment(body: dict[str, Any]) -> str:
    comment = body.get("comment", "")
    if not isinstance(comment, str) or not silences.is_comment(comment):
        raise _bad(
            f"`comment` must be one printable line of at most {COMMENT_CHARS_MAX} characters."
        )
    return comment.strip()


def _bad(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", detail)
