"""An event as the command line is given it: a text with options, or a file with JSON."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleet.errors import Refused
from fleet.formats import hop_count, strict_json
from routing import InvalidEvent
from routing.event import EVENT_BYTES_MAX


def read_event(text: str | None, file: str | None, options: Mapping[str, Any]) -> Any:
    """The raw event; `options` that are not None win over what a file says.

    In the program of a turn it is one hop further than the event that the turn is of.

    Raises InvalidEvent for a file without JSON, Refused for one that is too large or unreadable.
    """
    further = hop_count.of_next()
    handed_on = {} if further is None else {"hops": further}
    given = {name: value for name, value in options.items() if value is not None}
    if file is None:
        return {"text": text, **given, **handed_on}
    raw = _parse(_read(file))
    if not isinstance(raw, dict):
        return raw
    # In a CloudEvents object the fleet's own fields stand in `data`, and what stands there wins.
    if isinstance(raw.get("data"), dict):
        raw["data"] = {name: value for name, value in raw["data"].items() if name not in given}
    return {**raw, **given, **handed_on}


def _read(file: str) -> bytes:
    try:
        if file == "-":
            body = sys.stdin.buffer.read(EVENT_BYTES_MAX + 1)
        else:
            with Path(file).open("rb") as stream:
                body = stream.read(EVENT_BYTES_MAX + 1)
    except IsADirectoryError as error:
        raise Refused(f"{file} is a folder; name a file that holds the event.") from error
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}.") from error
    if len(body) > EVENT_BYTES_MAX:
        raise Refused(f"The event is larger than {EVENT_BYTES_MAX} bytes.")
    return body


def _parse(body: bytes) -> Any:
    try:
        return strict_json.parse(body)
    except ValueError as error:
        raise InvalidEvent(f"The event is not valid JSON: {error}.") from error
