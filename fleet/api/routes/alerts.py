"""The alerts over HTTP: list, silence, unsilence and acknowledge."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import caller_of, rights_of
from fleet.api.request.body import check_media_type, parse_json, read_body
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import check_names, flag
from fleet.api.request.problems import Problem
from fleet.auth.tokens import EVERYONE, Rights
from fleet.ledger import operations
from fleet.ops.alerts import listing, silences
from fleet.ops.alerts.silences import COMMENT_CHARS_MAX, SILENCE_S_MAX, AlertTarget
from fleet.runtime import Runtime
from fleet.store import Store

_BODY_BYTES_MAX = 8192
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
        body = await _body(request, "for_s", "by", "comment")
        for_s, by, comment = _span(body), _by(request, body), _comment(body)
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
        await _body(request)
        return await self._mark(request, "unsilenced", silences.unsilence)

    async def ack(self, request: Request) -> Response:
        """Acknowledge an open alert."""
        body = await _body(request, "by", "comment")
        by, comment = _by(request, body), _comment(body)
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


async def _body(request: Request, *known: str) -> dict[str, Any]:
    """A JSON object with no other keys than the `known`; an absent body is an empty one."""
    body = await read_body(request.scope, request.receive, _BODY_BYTES_MAX)
    if not body.strip():
        return {}
    check_media_type(request.scope)
    value = parse_json(body)
    if not isinstance(value, dict):
        raise _bad("The body must be a JSON object.")
    for key in value.keys() - set(known):
        raise _bad(f"{key[:100]!r} is no key of this body; known are {', '.join(known) or 'none'}.")
    return value


def _span(body: dict[str, Any]) -> float:
    for_s = body.get("for_s")
    if isinstance(for_s, bool) or not isinstance(for_s, int | float):
        raise _bad("`for_s` is needed: the seconds of the silence.")
    if not 1 <= for_s <= SILENCE_S_MAX:
        raise _bad(f"`for_s` must be from 1 to {SILENCE_S_MAX:g} seconds.")
    return float(for_s)


def _by(request: Request, body: dict[str, Any]) -> str:
    """The name of the caller's token; without tokens the `by` of the body."""
    if token := caller_of(request.scope).token:
        return token.name
    by = body.get("by", _BY_DEFAULT)
    if not isinstance(by, str) or not operations.is_name(by):
        raise _bad(f"`by` must be one printable line of 1 to {operations.BY_CHARS_MAX} characters.")
    return by


def _comment(body: dict[str, Any]) -> str:
    comment = body.get("comment", "")
    if not isinstance(comment, str) or not silences.is_comment(comment):
        raise _bad(
            f"`comment` must be one printable line of at most {COMMENT_CHARS_MAX} characters."
        )
    return comment.strip()


def _bad(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", detail)
