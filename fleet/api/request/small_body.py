"""The small JSON bodies of operations: a reason, a name, a few options."""

from http import HTTPStatus
from typing import Any

from starlette.requests import Request

from fleet.api.auth.access import caller_of
from fleet.api.request.body import check_media_type, parse_json, read_body
from fleet.api.request.problems import Problem
from fleet.ledger import operations

REASON_CHARS_MAX = 500
BODY_BYTES_MAX = 16 * 1024


async def read_object(request: Request, *known: str, limit: int = BODY_BYTES_MAX) -> dict[str, Any]:
    """An optional JSON object with no other keys than the `known`."""
    body = await read_body(request.scope, request.receive, limit)
    if not body.strip():
        return {}
    check_media_type(request.scope)
    value = parse_json(body)
    if not isinstance(value, dict):
        raise _no_object(known[0] if known else "")
    for key in value.keys() - set(known):
        detail = f"{key[:100]!r} is no key of this body; known are {', '.join(known) or 'none'}."
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", detail)
    return value


def _no_object(key: str) -> Problem:
    example = f"{{{key!r}: ...}}" if key else "{}"
    detail = f"The body must be a JSON object, such as {example}."
    if key == "reason":
        return Problem(HTTPStatus.BAD_REQUEST, "invalid-reason", detail)
    return Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", detail)


def reason_in(body: dict[str, Any], default: str) -> str:
    """The `reason` of a body, one line."""
    reason = body.get("reason", default)
    if not isinstance(reason, str) or not reason.isprintable() or len(reason) > REASON_CHARS_MAX:
        detail = f"`reason` must be one printable line of at most {REASON_CHARS_MAX} characters."
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid-reason", detail)
    return reason.strip() or default


def by_in(request: Request, body: dict[str, Any], default: str) -> str:
    """The name of the caller's token; without tokens the `by` of the body."""
    if token := caller_of(request.scope).token:
        return token.name
    by = body.get("by", default)
    if not isinstance(by, str) or not operations.is_name(by):
        detail = f"`by` must be one printable line of 1 to {operations.BY_CHARS_MAX} characters."
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid-by", detail)
    return by
