"""The tokens over HTTP, for the scope `admin`: create, list and revoke.

While the API asks for no token nobody makes or revokes one here: whoever could reach it would shut
everybody else out. The first token comes from the command line on the fleet's machine.
"""

from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import caller_of, rights_of
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import check_names
from fleet.api.request.problems import Problem
from fleet.api.request.small_body import read_object
from fleet.auth import tokens
from fleet.auth.tokens import Token, TokenError
from fleet.errors import Forbidden
from fleet.ledger.operations import Unknown
from fleet.runtime import Runtime
from routing.event import EVENT_BYTES_MAX

_RATE_MAX = 1e6


class Tokens:
    """The endpoints under `/tokens`."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def all(self, request: Request) -> Response:
        """List the tokens, or create one; one route, which names both methods in `Allow`."""
        return await (self._create(request) if request.method == "POST" else self._find(request))

    async def _find(self, request: Request) -> Response:
        """Every token, newest first, without its secret."""
        rights_of(request.scope).need_admin()
        check_names(request.query_params)
        stored = await self._reads.run(lambda: tokens.read_all(self._runtime.store))
        newest_first = sorted(stored.values(), key=lambda one: -one.created_ms)
        return JSONResponse({"tokens": [tokens.shown(one) for one in newest_first]})

    async def _create(self, request: Request) -> Response:
        """Create a token; its text is in this answer and nowhere else."""
        _need_token(request)
        check_names(request.query_params)
        body = await read_object(request, "name", "scopes", "rate_per_s", "body_bytes")
        name, scopes = body.get("name"), body.get("scopes")
        if not isinstance(name, str):
            raise _wrong("`name` must be a text")
        if not isinstance(scopes, list) or not all(isinstance(one, str) for one in scopes):
            raise _wrong("`scopes` must be a list of texts")
        limits = {
            "rate_per_s": _number(body, "rate_per_s", _RATE_MAX),
            "body_bytes": _number(body, "body_bytes", EVENT_BYTES_MAX, whole=True),
        }
        made, text = await self._reads.run(lambda: self._make(name, scopes, limits))
        return JSONResponse({**tokens.shown(made), "token": text}, int(HTTPStatus.CREATED))

    async def revoke(self, request: Request) -> Response:
        """Revoke the token of this id, or all of this name."""
        _need_token(request)
        check_names(request.query_params)
        which = str(request.path_params["which"])

        def revoke() -> list[Token]:
            try:
                return tokens.revoke(self._runtime.store, which)
            except TokenError as error:
                raise Unknown(str(error)) from error

        revoked = await self._reads.run(revoke)
        return JSONResponse({"revoked": [{"id": one.id, "name": one.name} for one in revoked]})

    def _make(self, name: str, scopes: list[str], limits: dict[str, Any]) -> tuple[Token, str]:
        settings = self._runtime.settings
        names = [*settings.agents, *settings.people()]
        try:
            checked = tokens.checked_scopes(scopes, names, settings.mcp.tools)
            return tokens.create(self._runtime.store, name, checked, **limits)
        except TokenError as error:
            raise Problem(HTTPStatus.BAD_REQUEST, "invalid-token", str(error)) from error


def _need_token(request: Request) -> None:
    """Require a token with the scope `admin`."""
    if caller_of(request.scope).token is None:
        raise Forbidden(
            "This fleet asks for no token yet: `fleet token create` on its machine makes the first."
        )
    rights_of(request.scope).need_admin()


def _number(body: dict[str, Any], name: str, most: float, *, whole: bool = False) -> float | None:
    """A positive number that may be absent."""
    value = body.get(name)
    if value is None:
        return None
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not 0 < value <= most:
        kind = "whole number" if whole else "number"
        raise _wrong(f"`{name}` must be a {kind} above 0, and at most {most:g}")
    return float(value) if not whole else int(value)


def _wrong(sentence: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "invalid-token", f"{sentence}.")
