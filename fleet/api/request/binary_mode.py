"""CloudEvents in HTTP's binary mode: the attributes in `ce-` headers, the data in the body.

After the HTTP binding 1.0.2. What is read here is an event in the structured form, so the same
`id` is the same event in either mode. A page of another site cannot send such headers without the
browser's preflight request, so a body of plain text is safe here.
"""

from collections import Counter
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers

from fleet.api.request.body import check_encoding, is_json, parse_json
from fleet.api.request.problems import Problem

_PREFIX, _TEXT = "ce-", "text/plain"
#: One of these makes a request a binary CloudEvent; further ones are its extensions.
_MARKS = frozenset({"ce-specversion", "ce-id", "ce-source", "ce-type"})
#: Attributes that are whole numbers; in headers all are text.
_NUMBERS = frozenset({"priority", "hops"})


def is_binary(headers: Headers) -> bool:
    """True for an event in binary mode: by its headers, unless the body is a whole CloudEvent."""
    media_type = _media_type(headers)
    return not media_type.startswith("application/cloudevents") and not _MARKS.isdisjoint(headers)


def check_binary(headers: Headers) -> str:
    """The data's media type, '' when unset.

    Raises Problem 415 for data that is neither JSON nor plain text, 400 for ambiguous headers.
    """
    media_type, parameters = _media_type(headers), headers.get("content-type", "").lower()
    known = not media_type or is_json(media_type) or media_type == _TEXT
    charset = parameters.partition("charset=")[2].partition(";")[0].strip(' "')
    if not known or charset not in ("", "utf-8", "utf8", "us-ascii"):
        detail = (
            "`Content-Type` of an event's data must be application/json or text/plain in UTF-8."
        )
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media-type", detail)
    check_encoding(headers)
    if "ce-specversion" not in headers:
        raise _invalid("The event has `ce-` headers, but no `ce-specversion`: send `1.0` in it.")
    twice = [name for name, count in Counter(headers.keys()).items() if count > 1]
    if doubled := [name for name in twice if name.startswith(_PREFIX)]:
        raise _invalid(f"The header {doubled[0][:60]!a} stands twice: keep one.")
    return media_type


def read_binary(headers: Headers, body: bytes) -> dict[str, Any]:
    """The event in the structured form. Raises Problem 400 for what is not UTF-8, or not JSON."""
    event: dict[str, Any] = {
        name.removeprefix(_PREFIX): _value(name, text)
        for name, text in headers.items()
        if name.startswith(_PREFIX)
    }
    # What the specification reserves for the body.
    event.pop("data", None)
    for name in _NUMBERS & event.keys():
        text = event[name]
        if text.isascii() and text.isdecimal() and len(text) < 17:
            event[name] = int(text)
    if body:
        event["data"] = _text(body) if _media_type(headers) == _TEXT else parse_json(body)
    return event


def _value(name: str, text: str) -> str:
    """A header's value without quotes and percent-encoding, as section 3.1.3.2 has them."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise _invalid(f"The header {name[:60]!a} is not percent-encoded UTF-8.") from None


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(f"The body is not UTF-8 (byte {error.start}).") from None


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _invalid(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "invalid-event", detail)
