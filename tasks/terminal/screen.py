"""A screen: a program's output as a person sees it.

It follows ECMA-48 and xterm on where text goes, and ignores how text looks. Unlike a terminal it
records which rows only continue a long line, so that such a line is read whole. It also keeps every
line that has scrolled off since the last `mark`.
"""

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

ROWS, COLUMNS = 50, 160

_TOKEN = re.compile(
    r"(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
    r"|\x1b\[(?P<private>[<-?]*)(?P<numbers>[0-9;:]*)(?P<between>[ -/]*)(?P<final>[@-~])"
    r"|\x1b(?:\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\)"
    r"|\x1b(?P<short>[ -/]*[0-OQ-WYZ\\`-~])"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f\x7f-\x9f])"
)
#: A sequence of which the end has yet to come.
_PARTIAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?)")
#: Longer text is not a sequence.
_PARTIAL_MAX = 1 << 16
_TAB = 8
#: The largest number in a sequence; larger ones count as this.
_NUMBER_MAX = 9999
_REPLIES_MAX = 256

_ALTERNATE = frozenset({47, 1047, 1049})
_BRACKETS_PASTES = 2004


@dataclass(slots=True)
class _Row:
    cells: list[str] = field(default_factory=lambda: [" "] * COLUMNS)
    wrapped: bool = False  #: continues the row above


@dataclass(frozen=True, slots=True)
class ScreenPosition:
    """A position in the output."""

    row: int
    column: int
    #: The lines of the screen then.
    shown: tuple[str, ...]
    #: The line with the cursor, up to it.
    prompt: str


class Screen:
    """Fed with bytes; read as text. Raises nothing for any input."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._pending = ""
        self._rows = [_Row() for _ in range(ROWS)]
        self._gone: list[tuple[str, bool]] = []  #: rows that scrolled off since the mark
        self._main: list[_Row] | None = None  #: while the alternate screen is shown
        self._x = self._y = 0  #: x is COLUMNS behind a full row: the next character wraps
        self._saved = (0, 0)
        self._top, self._bottom = 0, ROWS - 1  #: of the scrolling part
        self._mark_row = 0  #: negative once it has scrolled off
        #: True when the rows below the mark are not all the output since.
        self.redrawn = False
        #: The program asked that pastes be bracketed (DECSET 2004).
        self.brackets_pastes = False
        #: A terminal's answers to the program's queries.
        self.replies = b""

    def feed(self, data: bytes) -> None:
        """Process more of the program's output."""
        text = self._pending + self._decode(data)
        at = 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is not None:
                self._do(token)
                at = token.end()
            elif len(text) - at <= _PARTIAL_MAX and _PARTIAL.fullmatch(text, at):
                break
            else:
                at += 1
        self._pending = text[at:]

    def mark(self) -> ScreenPosition:
        """Begin to keep the lines that scroll off, for `lines_since`."""
        self._gone.clear()
        self._mark_row, self.redrawn = self._y, False
        return ScreenPosition(self._y, self._x, tuple(_lines(self._all())), self.cursor_line())

    def lines_since(self, mark: ScreenPosition) -> list[str]:
        """The lines printed since the newest mark, the first from the cursor's position then.

        After a redraw of the screen: the lines that were not there at the mark.
        """
        rows = self._all()
        if not self.redrawn:
            first, *more = _lines(rows[mark.row :])
            return [first[mark.column :], *more]
        known = Counter(mark.shown)
        lines = []
        for line in _lines(rows):
            if known[line]:
                known[line] -= 1
            else:
                lines.append(line)
        return lines

    def cursor_line(self) -> str:
        """The line with the cursor, up to it."""
        first = self._y
        while first and self._rows[first].wrapped:
            first -= 1
        text = "".join("".join(row.cells) for row in self._rows[first : self._y])
        return text + "".join(self._rows[self._y].cells[: self._x])

    def last_line(self) -> str:
        """The last line that is not blank."""
        rows = [("".join(row.cells), row.wrapped) for row in self._rows]
        return next(filter(None, reversed([*_lines(rows)])), "")

    def _all(self) -> list[tuple[str, bool]]:
        return self._gone + [("".join(row.cells), row.wrapped) for row in self._rows]

    def _do(self, token: "re.Match[str]") -> None:
        if text := token["text"]:
            self._draw(text)
        elif final := token["final"]:
            if not token["between"]:
                self._sequence(token["private"], token["numbers"], final)
        elif code := self._CODES.get(token["control"] or token["short"]):
            code(self)

    def _draw(self, text: str) -> None:
        if self._y < self._mark_row:
            self.redrawn = True
        if text.isascii():
            while text:
                row = self._row_to_draw(1)
                piece = text[: COLUMNS - self._x]
                row.cells[self._x : self._x + len(piece)] = piece
                self._x += len(piece)
                text = text[len(piece) :]
            return
        for char in text:
            width = _width(char)
            if width == 0:
                if self._x:
                    self._rows[self._y].cells[self._x - 1] += char
                continue
            row = self._row_to_draw(width)
            row.cells[self._x : self._x + width] = [char, ""][:width]
            self._x += width

    def _row_to_draw(self, width: int) -> _Row:
        """The row for the next character of that width."""
        if self._x + width > COLUMNS:
            if self._x < COLUMNS:
                self._rows[self._y].cells[self._x] = ""
            self._x = 0
            self._down()
            self._rows[self._y].wrapped = True
        elif self._x == 0:
            self._rows[self._y].wrapped = False
        return self._rows[self._y]

    def _back(self) -> None:
        self._x = max(0, min(self._x, COLUMNS - 1) - 1)

    def _tab(self) -> None:
        self._x = min(COLUMNS - 1, (self._x // _TAB + 1) * _TAB)

    def _return(self) -> None:
        self._x = 0

    def _next_line(self) -> None:
        self._x = 0
        self._down()

    def _up(self) -> None:
        if self._y == self._top:
            self._insert(self._top, 1)
        else:
            self._y = max(0, self._y - 1)

    def _save(self) -> None:
        self._saved = (self._x, self._y)

    def _restore(self) -> None:
        self._x, self._y = self._saved

    def _reset(self) -> None:
        self._erase(0, ROWS)
        self._x = self._y = self._top = 0
        self._bottom, self.brackets_pastes = ROWS - 1, False

    def _sequence(self, private: str, numbers: str, final: str) -> None:
        values = [min(int(n or 0), _NUMBER_MAX) for n in re.split("[;:]", numbers)[:16]]
        if final in "hl":
            if private == "?":
                self._modes(values, final == "h")
        elif private in ("", "?") and final in "nc":
            self._reply(private, values[0], final)
        elif edit := self._EDITS.get(private + final):
            edit(self, values)
        elif not private:
            self._move(final, values)

    def _modes(self, modes: list[int], on: bool) -> None:
        if _BRACKETS_PASTES in modes:
            self.brackets_pastes = on
        if _ALTERNATE.intersection(modes) and on != (self._main is not None):
            self.redrawn = True
            if self._main is None:
                self._main, self._saved = self._rows, (self._x, self._y)
                self._rows = [_Row() for _ in range(ROWS)]
            else:
                self._rows, self._main = self._main, None
                self._x, self._y = self._saved

    def _reply(self, private: str, value: int, final: str) -> None:
        """Answer for position, status and kind (a VT102), as xterm does."""
        answer = ""
        if final == "n" and value == 6:
            answer = f"\x1b[{private}{self._y + 1};{min(self._x, COLUMNS - 1) + 1}R"
        elif not private and final == "n" and value == 5:
            answer = "\x1b[0n"
        elif not private and final == "c" and value == 0:
            answer = "\x1b[?6c"
        if len(self.replies) < _REPLIES_MAX:
            self.replies += answer.encode()

    def _move(self, final: str, values: list[int]) -> None:
        by, x, y = max(1, values[0]), min(self._x, COLUMNS - 1), self._y
        second = max(1, values[1]) if len(values) > 1 else 1
        places = {
            "A": (x, y - by),
            "B": (x, y + by),
            "C": (x + by, y),
            "D": (x - by, y),
            "E": (0, y + by),
            "F": (0, y - by),
            "G": (by - 1, y),
            "`": (by - 1, y),
            "a": (x + by, y),
            "d": (x, by - 1),
            "e": (x, y + by),
            "H": (second - 1, by - 1),
            "f": (second - 1, by - 1),
            "u": self._saved,
        }
        if final in places:
            x, y = places[final]
            self._x, self._y = min(max(0, x), COLUMNS - 1), min(max(0, y), ROWS - 1)

    def _save_within(self, _: list[int]) -> None:
        self._saved = (min(self._x, COLUMNS - 1), self._y)

    def _set_margins(self, values: list[int]) -> None:
        low = values[1] if len(values) > 1 and values[1] else ROWS
        self._top, self._bottom = min(max(1, values[0]), ROWS) - 1, min(low, ROWS) - 1
        if self._top >= self._bottom:
            self._top, self._bottom = 0, ROWS - 1
        self._x = self._y = 0

    def _at_cursor(self, values: list[int]) -> tuple[list[str], int, list[str]]:
        """The cells of its line, its column, and the blanks that a count of cells stands for."""
        x = min(self._x, COLUMNS - 1)
        return self._rows[self._y].cells, x, [" "] * min(max(1, values[0]), COLUMNS - x)

    def _delete_cells(self, values: list[int]) -> None:
        cells, x, blanks = self._at_cursor(values)
        cells[x:] = [*cells[x + len(blanks) :], *blanks]

    def _insert_cells(self, values: list[int]) -> None:
        cells, x, blanks = self._at_cursor(values)
        cells[x:] = [*blanks, *cells[x : COLUMNS - len(blanks)]]

    def _blank_cells(self, values: list[int]) -> None:
        cells, x, blanks = self._at_cursor(values)
        cells[x : x + len(blanks)] = blanks

    def _repeat(self, values: list[int]) -> None:
        if x := min(self._x, COLUMNS - 1):
            self._draw(self._rows[self._y].cells[x - 1][:1] * min(max(1, values[0]), COLUMNS))

    def _clear_line(self, values: list[int]) -> None:
        """0 from the cursor on, 1 up to it, 2 all."""
        x, row = min(self._x, COLUMNS - 1), self._rows[self._y]
        first, end = {0: (x, COLUMNS), 1: (0, x + 1), 2: (0, COLUMNS)}.get(values[0], (0, 0))
        row.cells[first:end] = [" "] * (end - first)
        row.wrapped = row.wrapped and values[0] != 2

    def _clear(self, values: list[int]) -> None:
        """0 from the cursor on, 1 up to it, 2 all."""
        which = values[0]
        if which in (0, 1):
            self._clear_line(values)
        if which == 0:
            self._erase(self._y + 1, ROWS)
        elif which in (1, 2):
            self.redrawn = True
            self._erase(0, self._y if which == 1 else ROWS)

    def _erase(self, first: int, end: int) -> None:
        if first < self._mark_row:
            self.redrawn = True
        for number in range(first, end):
            self._rows[number] = _Row()

    def _down(self) -> None:
        if self._y == self._bottom:
            self._remove(self._top, 1)
        elif self._y < ROWS - 1:
            self._y += 1

    def _remove(self, row: int, count: int) -> None:
        """Remove rows from this one on; the scrolling rows below move up."""
        if not self._top <= row <= self._bottom:
            return
        for _ in range(min(max(1, count), self._bottom - row + 1)):
            gone = self._rows.pop(row)
            self._rows.insert(self._bottom, _Row())
            self._gone.append(("".join(gone.cells), gone.wrapped))
            if row == 0 and self._mark_row <= self._bottom:
                self._mark_row -= 1
            else:
                self.redrawn = True

    def _insert(self, row: int, count: int) -> None:
        """Insert blank rows before this one; the scrolling rows below move down and out."""
        if not self._top <= row <= self._bottom:
            return
        self.redrawn = True
        for _ in range(min(max(1, count), self._bottom - row + 1)):
            self._rows.pop(self._bottom)
            self._rows.insert(row, _Row())

    #: Control characters, and sequences of ESC and one character.
    _CODES: ClassVar[Mapping[str | None, Callable[["Screen"], None]]] = {
        "\b": _back,
        "\t": _tab,
        "\n": _down,
        "\v": _down,
        "\f": _down,
        "\r": _return,
        "7": _save,
        "8": _restore,
        "D": _down,
        "E": _next_line,
        "M": _up,
        "c": _reset,
    }
    #: Sequences of ESC, `[` and numbers, by the character that ends them.
    _EDITS: ClassVar[Mapping[str, Callable[["Screen", list[int]], None]]] = {
        "@": _insert_cells,
        "J": _clear,
        "K": _clear_line,
        "L": lambda self, values: self._insert(self._y, values[0]),
        "M": lambda self, values: self._remove(self._y, values[0]),
        "P": _delete_cells,
        "S": lambda self, values: self._remove(self._top, values[0]),
        "T": lambda self, values: self._insert(self._top, values[0]),
        "X": _blank_cells,
        "b": _repeat,
        "r": _set_margins,
        "s": _save_within,
    }


def _lines(rows: list[tuple[str, bool]]) -> Iterator[str]:
    """Rows as lines: wrapped rows are joined, and no line has a blank end."""
    line: str | None = None
    for text, wrapped in rows:
        if line is not None and not wrapped:
            yield line.rstrip()
            line = None
        line = (line or "") + text
    yield (line or "").rstrip()


def _width(char: str) -> int:
    """Columns that a character takes."""
    if unicodedata.combining(char) or unicodedata.category(char) in ("Me", "Mn", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
