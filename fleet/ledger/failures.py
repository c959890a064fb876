"""The failures of a dispatch's attempts: what the store keeps of each, and what callers see.

Stage, reason, class and place of an error are for everybody who may see the dispatch. The message
and the traceback are content.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from fleet.formats.redaction import HIDDEN
from fleet.ledger.protocol import Failure

#: Bytes of UTF-8. A longer message keeps its beginning, a longer traceback its end.
MESSAGE_BYTES_MAX = 4096
TRACEBACK_BYTES_MAX = 8192

_CUT = " [...] "
_CONTENT = ("message", "traceback")


def failure_text(failure: Failure) -> str:
    """A failure as the store keeps it: JSON, bounded."""
    fields = {
        "stage": str(failure.stage),
        "reason": failure.reason,
        "kind": failure.kind,
        "place": failure.place,
        "message": first_bytes(failure.message, MESSAGE_BYTES_MAX),
        "traceback": last_bytes(failure.traceback, TRACEBACK_BYTES_MAX),
    }
    text = json.dumps({name: value for name, value in fields.items() if value}, ensure_ascii=False)
    return text.encode(errors="replace").decode()


def read_failures(
    stored: Sequence[str], when: Callable[[float], str], *, content: bool
) -> list[dict[str, Any]]:
    """The failures of a dispatch, oldest first; without `content` its texts are hidden."""
    return [_read(one, when, content) for one in stored]


def shown_failure(failure: Failure, attempt: int, *, content: bool) -> dict[str, Any]:
    """A failure that no store has yet, in the same form but for its time."""
    return _shown({"attempt": attempt}, json.loads(failure_text(failure)), content)


def first_bytes(text: str, limit: int) -> str:
    """The whole text, or its beginning in at most `limit` bytes of UTF-8 before a mark."""
    raw = text.encode(errors="replace")
    if len(raw) <= limit:
        return raw.decode()
    return raw[: limit - len(_CUT)].decode(errors="ignore") + _CUT


def last_bytes(text: str, limit: int) -> str:
    """The whole text, or its end in at most `limit` bytes of UTF-8 behind a mark."""
    raw = text.encode(errors="replace")
    if len(raw) <= limit:
        return raw.decode()
    return _CUT + raw[len(_CUT) - limit :].decode(errors="ignore")


def _read(stored: str, when: Callable[[float], str], content: bool) -> dict[str, Any]:
    attempt, millis, text = stored.split(" ", 2)
    return _shown({"attempt": int(attempt), "at": when(float(millis))}, json.loads(text), content)


def _shown(head: dict[str, Any], fields: dict[str, Any], content: bool) -> dict[str, Any]:
    hidden = {} if content else {name: HIDDEN for name in _CONTENT if name in fields}
    return {**head, **fields, **hidden}
