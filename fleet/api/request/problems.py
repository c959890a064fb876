"""RFC 9457 problem documents for every refusal of the API: a status, a code and one sentence.

The sentence names a field or a parameter and never repeats the content: a body may hold secrets.
"""

import json
import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from fleet.api.request.bounded_threads import ThreadsBusy
from fleet.errors import (
    BrokerUnavailable,
    FleetError,
    Forbidden,
    IdempotencyConflict,
    Refused,
    SessionBusy,
    StoreLost,
)
from fleet.ledger.ids import Ambiguous
from fleet.ledger.operations import NotPossible, Unknown
from routing import RoutingError, TooManyHops, UnknownTarget

MEDIA_TYPE = "application/problem+json"
#: `Retry-After` while the broker is down: its restart takes about a second.
RETRY_AFTER_S = 1.0

_log = logging.getLogger(__name__)


class Problem(Exception):
    """A refusal; raised anywhere below a route."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))

    def to_wire(self) -> dict[str, Any]:
        """The document."""
        wire: dict[str, Any] = {
            "type": f"urn:fleet:problem:{self.code}",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": str(self),
        }
        if self.retry_after_s is not None:
            wire["retry_after_s"] = self.retry_after_s
        return wire

    def to_response(self) -> Response:
        """The document as an answer."""
        body = json.dumps(self.to_wire()).encode()
        return Response(body, int(self.status), self.headers, MEDIA_TYPE)


def bad_parameter(name: str, requirement: str) -> Problem:
    """A 400 for a query parameter; `requirement` is the rule it breaks."""
    return Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", f"`{name}` {requirement}.")


def as_problem(error: Exception) -> Problem:
    """Map an error to its problem document."""
    if isinstance(error, Problem):
        return error
    text = str(error)
    match error:
        case UnknownTarget():
            return Problem(HTTPStatus.NOT_FOUND, "unknown-target", text)
        case TooManyHops():
            return Problem(HTTPStatus.BAD_REQUEST, "too-many-hops", text)
        case RoutingError():
            return Problem(HTTPStatus.BAD_REQUEST, "invalid-event", text)
        case Forbidden():
            return Problem(HTTPStatus.FORBIDDEN, "missing-scope", text)
        case IdempotencyConflict():
            return Problem(HTTPStatus.CONFLICT, "idempotency-conflict", text)
        case SessionBusy():
            wait = error.retry_after_s
            return Problem(HTTPStatus.CONFLICT, "session-busy", text, retry_after_s=wait)
        case StoreLost():
            wait = error.retry_after_s
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "store-lost", text, retry_after_s=wait)
        case Refused():
            wait = error.retry_after_s
            return Problem(HTTPStatus.TOO_MANY_REQUESTS, "refused", text, retry_after_s=wait)
        case BrokerUnavailable() | ThreadsBusy():
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return Problem(status, "unavailable", text, retry_after_s=RETRY_AFTER_S)
        case Unknown():
            return Problem(HTTPStatus.NOT_FOUND, "not-found", text)
        case Ambiguous():
            return Problem(HTTPStatus.CONFLICT, "ambiguous-id", text)
        case NotPossible():
            return Problem(HTTPStatus.CONFLICT, "not-possible", text)
        case FleetError():
            return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "failed", text)
        case HTTPException():
            status = HTTPStatus(error.status_code)
            detail = _ROUTELESS.get(status, f"{status.phrase}.")
            return Problem(status, "no-route", detail, headers=error.headers)
    _log.error("A request failed by a fault of the API.", exc_info=error)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "fault", "The API failed: see its log.")


#: Refusals by Starlette itself.
_ROUTELESS = {
    HTTPStatus.NOT_FOUND: "There is nothing at this path; /openapi.json lists what there is.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This path does not take this method; see the Allow header.",
    HTTPStatus.BAD_REQUEST: "The request is malformed.",
}


async def handle(request: Request, error: Exception) -> Response:
    """Starlette's exception handler."""
    return as_problem(error).to_response()


HANDLERS: dict[Any, Any] = dict.fromkeys(
    (Problem, RoutingError, FleetError, HTTPException, Exception), handle
)
