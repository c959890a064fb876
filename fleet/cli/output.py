"""How commands print: tables for people, JSON for programs. rich is loaded for a table only."""

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any

from fleet.formats.terminal_text import CONTROL, DIRECTION
from fleet.ledger.bus import BusEvent

if TYPE_CHECKING:
    from rich.console import Console

#: With neither a terminal nor COLUMNS, a table is as wide as its longest line, up to this.
PIPE_COLUMNS = 200

#: The length of an id in a table: its first group.
SHORT_ID_CHARS = 8
_LONG_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Columns of ids, which a person copies: never wrapped and never cut.
_OF_IDS = frozenset({"dispatch", "active", "id"})
#: A column that is no wider is never folded. A folded one has at least so many characters, and room
#: for each word of its name.
WHOLE_CHARS, FOLDED_CHARS_MIN = 8, 6
#: Between two columns.
_GAP = 2
#: Fields of bus events that hold a moment, in seconds since 1970.
_MOMENTS = frozenset({"retry_at", "expires_at"})

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
    # rich takes the width from the terminal, or from COLUMNS.
    width = None if stream.isatty() or _columns() else PIPE_COLUMNS
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def _columns() -> int:
    """The width that the environment asks for; 0 for none."""
    text = os.environ.get("COLUMNS", "")
    return int(text) if text.isascii() and text.isdecimal() else 0


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; a column named `state` is coloured, and nothing in a cell is markup.

    Where the columns do not fit side by side, each row is shown as lines of name and value.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[cell(value) for value in row] for row in rows]
    widths = [
        max(Text(one).cell_len for one in (name, *column))
        for name, *column in zip(columns, *cells, strict=True)
    ]
    # Columns of ids, and short ones, are never folded.
    whole = [
        name in _OF_IDS or width <= WHOLE_CHARS for name, width in zip(columns, widths, strict=True)
    ]
    least = [
        width if kept else max((FOLDED_CHARS_MIN, *map(len, name.split())))
        for name, width, kept in zip(columns, widths, whole, strict=True)
    ]
    drawn = console()
    if sum(least) + _GAP * len(columns) > drawn.width:
        rows_apart = (_aligned(list(zip(columns, row, strict=True)), drawn.width) for row in cells)
        print_line("\n\n".join(rows_apart))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, width, kept in zip(columns, least, whole, strict=True):
        table.add_column(name, overflow="fold", no_wrap=kept, min_width=width)
    for row in cells:
        texts = [Text(one) for one in row]
        for name, text in zip(columns, texts, strict=True):
            if name == "state":
                text.stylize(STATE_COLOURS.get(text.plain, ""))
        table.add_row(*texts)
    drawn.print(table)


def _aligned(pairs: Sequence[tuple[str, str]], columns: int | None = None) -> str:
    """Lines of name and value, folded between words to fit into `columns`."""
    place = max((len(name) for name, _ in pairs), default=0) + 2
    if columns is not None:
        fold = TextWrapper(
            width=max(columns - place, 1), break_long_words=False, break_on_hyphens=False
        )
        indent = "\n" + " " * place
        pairs = [(name, indent.join(fold.wrap(value))) for name, value in pairs]
    return "\n".join(f"{name:{place}}{value}" for name, value in pairs)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line, aligned; what is None is left out.

    A moment is shown with its distance from now.
    """
    shown = [
        (name, f"{cell(value)} ({ago(str(value))})" if name.endswith("_at") else cell(value))
        for name, value in pairs
        if value is not None
    ]
    if shown:
        print_line(_aligned(shown))


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


def ago(when: str | None) -> str | None:
    """A moment (RFC 3339) as its distance from now, such as `3m ago` or `in 20s`."""
    if when is None:
        return None
    seconds = time.time() - datetime.fromisoformat(when).timestamp()
    if abs(seconds) < 1:
        return "now"
    return f"{_rough(seconds)} ago" if seconds > 0 else f"in {_rough(-seconds)}"


def _rough(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.0f}s"


def short_id(text: str | None) -> str | None:
    """An id as a table shows it; commands take the beginning of an id in its place."""
    return text[:SHORT_ID_CHARS] if text and _LONG_ID.fullmatch(text) else text


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def event_line(event: BusEvent) -> str:
    """A bus event as one line: when, what, who, and what else it says."""
    fields = event.fields
    who = str(fields.get("agent", ""))
    if "attempt" in fields:
        who += f" #{fields['attempt']}"
    more = [
        f"{name}={_moment(value) if name in _MOMENTS else ' '.join(cell(value).split())}"
        for name, value in fields.items()
        if name not in _NAMED
    ]
    whose = cell(short_id(fields.get("dispatch_id") or fields.get("event_id")) or "")
    return (
        f"{event.time[11:23]} {event.type:18} {who:14} {whose:{SHORT_ID_CHARS}} {' '.join(more)}"
    ).rstrip()
