"""Messages of a tool server as a strict reader takes them.

Half an emoji, or a byte that is not UTF-8, costs a character and not the message: a call whose
answer cannot be read has been made, and would be told as one that took too long.
"""

import json
import re
from typing import Any

from mcp.types import INTERNAL_ERROR, JSONRPCMessage, jsonrpc_message_adapter

#: Half of a pair, as JSON escapes it; pairs are found with it, and stay.
_HALF_ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

#: Python reads no longer number.
_DIGITS_MAX = 4300

FORBIDDEN = "what the protocol does not allow"


def strict(raw: bytes) -> bytes:
    """The same JSON in UTF-8, without halves of characters; text that is no JSON stays."""
    try:
        raw.decode()
        if not _HALF_ESCAPED.search(raw):
            return raw
    except UnicodeDecodeError:
        raw = raw.decode(errors="replace").encode()
    try:
        text = json.dumps(json.loads(raw), ensure_ascii=False)
    except (ValueError, RecursionError):
        return raw
    return _HALF.sub(_REPLACEMENT, text).encode()


def messages_of(raw: bytes) -> list[JSONRPCMessage]:
    """The messages in a line: one, or those of a batch; none where it holds none.

    An answer that the protocol does not allow becomes an error, so that its request ends.
    """
    text = strict(raw)
    try:
        return [jsonrpc_message_adapter.validate_json(text, by_name=False)]
    except ValueError:
        pass
    try:
        found: Any = json.loads(text, parse_int=_number)
    except (ValueError, RecursionError):
        return []
    mended = map(_mended, found if isinstance(found, list) else [found])
    return [message for message in mended if message is not None]


def _number(digits: str) -> int | str:
    """A whole number; its digits where Python reads no number from so many."""
    return int(digits) if len(digits) <= _DIGITS_MAX else digits


def _mended(found: Any) -> JSONRPCMessage | None:
    if not isinstance(found, dict):
        return None
    number = found.get("id")
    if isinstance(number, float) and number.is_integer():
        found = {**found, "id": int(number)}
    is_answer = "method" not in found and (number is not None or "error" in found)
    refusal = {"jsonrpc": "2.0", "error": {"code": INTERNAL_ERROR, "message": FORBIDDEN}}
    without_result = {key: value for key, value in found.items() if key != "result"}
    tries = [found, {**found, "jsonrpc": "2.0"}, {**without_result, **refusal}]
    for message in tries if is_answer else tries[:1]:
        try:
            return jsonrpc_message_adapter.validate_python(message, by_name=False)
        except ValueError:
            continue
    return None
