"""`reference/bus.md`: the types of bus entries and their fields."""

from collections.abc import Sequence

from fleet.api.bus.cursor import Resync
from fleet.ledger.bus_types import DISPATCH_FIELDS, FIELDS, TYPES
from tests.docs.markdown import code, document, table

INTRODUCTION = """\
Follow the bus with `fleet events --follow`, `GET /bus` or `WS /ws`; see
[Streaming](../guides/streaming.md) and [HTTP](http.md). Each entry has `id`, `epoch`, `type` and
`time`, and of the fields below those that apply.

| field | type | meaning |
|---|---|---|
| `id` | text | The place on the bus: `MILLISECONDS-NUMBER`, by the store's clock. |
| `epoch` | text | The life of the data set; it changes when the store was emptied or restored. |
| `type` | text | One of the types below. |
| `time` | time | The time in `id`, after RFC 3339. |"""

_KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}

#: Why a client must fetch the state again.
RESYNC = {
    Resync.INVALID: "The last event id that the client gave is malformed.",
    Resync.TRIMMED: "Entries after the client's place are no longer kept.",
    Resync.GAP_TOO_LARGE: "Too many entries lie after the client's place to replay them.",
    Resync.EPOCH_CHANGED: "The store was emptied or restored, so the place is on another bus.",
    Resync.SLOW_CONSUMER: "The client read more slowly than entries came.",
    Resync.BUS_UNAVAILABLE: "The store was away.",
}


def page() -> str:
    """The page."""
    return document(
        "Bus",
        "After reading this page you can read every entry of the bus.",
        INTRODUCTION,
        "## Types",
        f"The fields of a dispatch are {', '.join(map(code, DISPATCH_FIELDS))}.",
        table(
            ("type", "written when", "fields"),
            ((code(name), one.sentence, _fields(one.fields)) for name, one in TYPES.items()),
        ),
        "## Fields",
        table(
            ("field", "type", "meaning"),
            ((code(name), _KINDS[one.kind], one.sentence) for name, one in FIELDS.items()),
        ),
        "## Reasons of `resync_required`",
        table(("reason", "meaning"), ((code(one), RESYNC[one]) for one in Resync)),
    )


def _fields(names: Sequence[str]) -> str:
    own = [code(name) for name in names if name not in DISPATCH_FIELDS]
    if set(DISPATCH_FIELDS) <= set(names):
        return ", ".join(["of the dispatch", *own])
    return ", ".join(map(code, names))
