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


def message_of(raw: bytes) -> JSONRPCMessage | None:
    """The message in a line; None for a line that holds none.

    An answer that the protocol does not allow becomes an error, so that its request ends.
    """
    text = strict(raw)
    try:
        return jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValueError:
        return _refusal_of(text)


def _refusal_of(text: bytes) -> JSONRPCMessage | None:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not {"result", "error"} & found.keys():
        return None
    fault = {"code": INTERNAL_ERROR, "message": FORBIDDEN}
    for more in ({"jsonrpc": "2.0"}, {"jsonrpc": "2.0", "error": fault}):
        kept = {k: v for k, v in found.items() if k != "result"} if "error" in more else found
        try:
            return jsonrpc_message_adapter.validate_python(kept | more, by_name=False)
        except ValueError:
            continue
    return None
