"""Reading the body of a request: JSON, and never more in memory than its limit."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from fleet.api.request.problems import Problem
from fleet.formats import strict_json

#: Time limit from the first to the last byte; a slower sender only occupies a connection.
BODY_S = 30.0
#: How much of a refused body is read and discarded: its sender then gets the answer instead of a
#: reset connection.
DISCARD_BYTES_MAX = 16 * 1024 * 1024
DISCARD_S = 2.0

_CLOSE = {"Connection": "close"}


class ClientGone(Exception):
    """The client disconnected before its request was complete; no answer is needed."""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read a body.

    Raises Problem 413 above `limit` bytes, 408 when slow, 400 with two lengths, and ClientGone.
    """
    headers = Headers(scope=scope)
    if "content-length" in headers and "transfer-encoding" in headers:
        # A proxy before the API may believe the other one (RFC 9112, 6.3).
        detail = "`Content-Length` beside `Transfer-Encoding`: the body must have one length."
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", detail, headers=_CLOSE)
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        # A client with `Expect: 100-continue` waits for this answer before it sends the body.
        if "expect" not in headers:
            await _discard(receive)
        raise too_large(limit)
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunk: bytes = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(chunk)
                if size > limit:
                    break
                chunks.append(chunk)
                if not more:
                    return b"".join(chunks)
    except TimeoutError:
        detail = f"The body did not arrive within {BODY_S:g} s."
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, "slow-body", detail, headers=_CLOSE) from None
    chunks.clear()
    if more:
        await _discard(receive)
    raise too_large(limit)


def too_large(limit: int) -> Problem:
    """The refusal of a body of more than `limit` bytes."""
    detail = f"The body is larger than {limit} bytes."
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail, headers=_CLOSE)


def check_media_type(scope: Scope) -> str:
    """The body's media type, '' when unset. Raises Problem 415 for anything but plain JSON.

    A web page may send a form or plain text to any site without a preflight request, but not JSON.
    """
    headers = Headers(scope=scope)
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and not is_json(media_type):
        detail = "`Content-Type` must be application/json or application/cloudevents+json."
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media-type", detail)
    check_encoding(headers)
    return media_type


def check_encoding(headers: Headers) -> None:
    """Raise Problem 415 for a compressed body."""
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        detail = "`Content-Encoding` must be identity: send the body uncompressed."
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media-type", detail)


def is_json(media_type: str) -> bool:
    """True for `application/json` and for types ending in `+json`."""
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def parse_json(body: bytes) -> Any:
    """Parse JSON in UTF-8. Raises Problem 400 with the place of the fault."""
    try:
        return strict_json.parse(body.decode())
    except json.JSONDecodeError as error:
        detail = f"The body is not JSON (line {error.lineno}, column {error.colno})."
    except UnicodeDecodeError as error:
        detail = f"The body is not UTF-8 (byte {error.start})."
    except strict_json.DuplicateKey as error:
        detail = f"The body is ambiguous: {error}."
    except ValueError as error:
        if isinstance(error.__cause__, RecursionError):
            detail = "The body is nested too deeply."
        else:
            detail = "The body holds a number that JSON does not have or that is too large."
    raise Problem(HTTPStatus.BAD_REQUEST, "not-json", detail)


async def _discard(receive: Receive) -> None:
    left = DISCARD_BYTES_MAX
    try:
        async with asyncio.timeout(DISCARD_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
    except TimeoutError:
        return
