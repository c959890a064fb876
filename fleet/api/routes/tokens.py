"""API tokens over HTTP, for callers with `admin`: list, create and revoke."""

from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import rights_of
from fleet.api.request.body import check_media_type, parse_json, read_body
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import check_names
from fleet.api.request.problems import Problem
from fleet.auth import tokens
from fleet.auth.tokens import Token, TokenError
from fleet.ledger.operations import Unknown
from fleet.runtime import Runtime
from routing.event import EVENT_BYTES_MAX

_BODY_BYTES_MAX = 16 * 1024
_KEYS = ("name", "scopes", "rate_per_s", "body_bytes")
RATE_MAX = 1e6


class Tokens:
    """The endpoints under `/tokens`."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def find(self, request: Request) -> Response:
        """Every token, newest first; never its secret."""
        check_names(request.query_params)
        rights_of(request.scope).need_admin()
        found = await self._reads.run(lambda: tokens.read_all(self._runtime.store))
        newest = sorted(found.values(), key=lambda one: -one.created_ms)
        return JSONResponse({"tokens": [_shown(one) for one in newest]})

    async def create(self, request: Request) -> Response:
        """Create a token; `token` is its text, this once."""
        rights_of(request.scope).need_admin()
        settings = self._runtime.settings
        body = await _body(request)
        name, scopes = body.get("name", ""), body.get("scopes", [])
        if not isinstance(name, str) or not isinstance(scopes, list):
            raise _invalid("`name` must be a text, and `scopes` a list of texts.")
        rate, limit = body.get("rate_per_s"), body.get("body_bytes")
        if rate is not None and not (_is_number(rate) and 0 < rate <= RATE_MAX):
            raise _invalid(f"`rate_per_s` must be a number above 0, at most {RATE_MAX:g}.")
        if limit is not None and not (type(limit) is int and 1 <= limit <= EVENT_BYTES_MAX):
            raise _invalid(f"`body_bytes` must be a whole number from 1 to {EVENT_BYTES_MAX}.")
        try:
            known = [*settings.agents, *settings.people()]
            checked = tokens.checked_scopes(list(map(str, scopes)), known, settings.mcp.tools)
            made, text = await self._reads.run(
                lambda: tokens.create(
                    self._runtime.store, name, checked, rate_per_s=rate, body_bytes=limit
                )
            )
        except TokenError as error:
            raise _invalid(str(error)) from error
        return JSONResponse({**_shown(made), "token": text}, int(HTTPStatus.CREATED))

    async def revoke(self, request: Request) -> Response:
        """Revoke the token of this id, or all of this name."""
        rights_of(request.scope).need_admin()
        check_names(request.query_params)
        which = str(request.path_params["which"])

        def revoke() -> list[Token]:
            try:
                return tokens.revoke(self._runtime.store, which)
            except TokenError as error:
                raise Unknown(str(error)) from error

        revoked = await self._reads.run(revoke)
        return JSONResponse({"revoked": [{"id": one.id, "name": one.name} for one in revoked]})


def _shown(token: Token) -> dict[str, Any]:
    shown = asdict(token)
    del shown["digest"]
    return shown


async def _body(request: Request) -> dict[str, Any]:
    body = await read_body(request.scope, request.receive, _BODY_BYTES_MAX)
    check_media_type(request.scope)
    value = parse_json(body)
    if not isinstance(value, dict):
        raise _invalid("The body must be a JSON object, such as {'name': ..., 'scopes': [...]}.")
    for key in value.keys() - set(_KEYS):
        raise _invalid(f"{key[:100]!r} is no key of this body; known are {', '.join(_KEYS)}.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _invalid(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "invalid-token", detail)
