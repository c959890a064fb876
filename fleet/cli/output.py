"""How commands print: tables for people, JSON for programs. rich is loaded for a table only."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fleet.formats.terminal_text import CONTROL, DIRECTION
from fleet.ledger.bus import BusEvent

if TYPE_CHECKING:
    from rich.console import Console

#: Without a terminal to fit into, a table is as wide as its longest line, up to this.
PIPE_COLUMNS = 200

STATE_COLOURS = {
    "active": "cyan",
    "announcing": "cyan",
    "completed": "green",
    "retrying": "yellow",
    "parked": "yellow",
    "dead": "red",
    "expired": "red",
    "dropped": "red",
    "cancelled": "magenta",
}

#: An answer may hold sequences that repaint a terminal, or characters that reorder its line; they
#: are shown, not sent.
_CONTROL = re.compile(rf"[^\S\n\t ]|{CONTROL.pattern}|{DIRECTION.pattern}")

#: Shown elsewhere on a bus event's line.
_NAMED = frozenset({"epoch", "agent", "dispatch_id", "event_id", "attempt", "chain_id"})


def print_json(document: Any) -> None:
    """One JSON document on standard output: indented for a terminal, one line for a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    print(_json(document, indent))


def print_json_line(document: Any) -> None:
    """One line of a stream of JSON documents, flushed, so that a reader sees it now."""
    print(_json(document), flush=True)


def print_line(text: str, *, flush: bool = False) -> None:
    """A line of the output for people."""
    print(printable(text), flush=flush)


def note(text: str) -> None:
    """A line for the person at the terminal, beside the output: standard error."""
    print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """`text` with control characters as escapes; newlines, tabs and spaces stay."""
    return _CONTROL.sub(lambda hit: hit[0].encode("unicode_escape").decode(), text)


def _json(document: Any, indent: int | None = None) -> str:
    """JSON in which those characters are escaped; JSON's own escapes say the same."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    return _CONTROL.sub(lambda hit: f"\\u{ord(hit[0]):04x}", text)


def console(*, stderr: bool = False) -> "Console":
    """A rich console that guesses no width without a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_COLUMNS
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; a column named `state` is coloured, and nothing in a cell is markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        cells = [Text(cell(value)) for value in row]
        for name, drawn in zip(columns, cells, strict=True):
            if name == "state":
                drawn.stylize(STATE_COLOURS.get(drawn.plain, ""))
        table.add_row(*cells)
    console().print(table)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line, aligned; what is None is left out."""
    shown = [(name, cell(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print_line(f"{name:{width}}  {value}")


def cell(value: object) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | dict):
        return printable(json.dumps(value, ensure_ascii=False))
    return printable(str(value))


def duration(seconds: float | None) -> str:
    """Seconds in the unit a person would choose."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    if seconds < 3600:
        return f"{seconds / 60:.0f}m"
    return f"{seconds / 3600:.1f}h" if seconds < 86400 else f"{seconds / 86400:.1f}d"


def event_line(event: BusEvent) -> str:
    """A bus event as one line: when, what, who, and what else it says."""
    fields = event.fields
    who = str(fields.get("agent", ""))
    if "attempt" in fields:
        who += f" #{fields['attempt']}"
    more = [
        f"{name}={' '.join(cell(value).split())}"
        for name, value in fields.items()
        if name not in _NAMED
    ]
    whose = fields.get("dispatch_id") or fields.get("event_id") or ""
    return (
        f"{event.time[11:23]} {event.type:18} {who:14} {cell(whose):36} {' '.join(more)}".rstrip()
    )
