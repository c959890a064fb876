"""Server-sent events as a client reads them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


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
