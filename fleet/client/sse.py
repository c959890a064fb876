"""Server-sent events as a client reads them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from fleet.errors import ApiUnreachable


class ServerSentEvent(NamedTuple):
    """One event of a stream, or one comment."""

    name: str  #: `message` where the server gives none; empty for a comment
    data: str
    id: str  #: of this event; empty where it has none


def parse_stream(lines: Iterable[str]) -> Iterator[ServerSentEvent]:
    """Each event of a stream, and each comment, in order."""
    name, place = "", ""
    data: list[str] = []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield ServerSentEvent(name or "message", "\n".join(data), place)
            name, data, place = "", [], ""
        elif not field:
            yield ServerSentEvent("", value, "")
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            place = value


def place_of(comment: ServerSentEvent) -> str | None:
    """The cursor that the first comment of a bus connection names; None where it names none."""
    word, _, place = comment.data.partition(" ")
    return place if word == "after" and place[:1].isalnum() and " " not in place else None


def entry_of(one: ServerSentEvent) -> dict[str, Any]:
    """The object in an event's data. Raises ApiUnreachable where there is none."""
    try:
        found = json.loads(one.data)
    except ValueError as error:
        raise ApiUnreachable(
            "An entry came that is not JSON; the connection is damaged."
        ) from error
    if not isinstance(found, dict):
        raise ApiUnreachable("An entry came that is no object; the connection is damaged.")
    return found
