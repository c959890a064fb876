"""The output of a child process: lines of bounded length, and a log of bounded size."""

import asyncio
import errno
import io
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from fleet.formats.terminal_text import CONTROL, DIRECTION

#: A longer line continues as the next line.
LINE_BYTES_MAX = 8192
#: At this size the log replaces the previous old log, and a new log begins.
LOG_BYTES_MAX = 5_000_000
#: Of the old log's name.
OLD_SUFFIX = ".1"

_CHUNK_BYTES = 65536


async def lines_of(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Each line as it comes, without its end, cut into pieces of at most LINE_BYTES_MAX bytes."""
    rest = b""
    while chunk := await stream.read(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            for piece in _pieces(line):
                yield piece
        while len(rest) > LINE_BYTES_MAX:
            yield _text(rest[:LINE_BYTES_MAX])
            rest = rest[LINE_BYTES_MAX:]
    if rest:
        yield _text(rest)


def agent_output(agent: str) -> str:
    """The name of an agent's output, and of its log."""
    return f"agent.{agent}"


def log_path(folder: Path, name: str) -> Path:
    """The log of a process, or of an output of its parts."""
    return folder / f"{name}.log"


class Output:
    """Lines under one name: each goes to `sink`, and with its time to the log."""

    def __init__(self, name: str, log: "LogFile", sink: Callable[[str, str], None]) -> None:
        self.name = name
        self._log, self._sink = log, sink
        self._fails = False

    def write(self, line: str) -> None:
        """Tell one line. A log that cannot be written is told to `sink`, once."""
        self._sink(self.name, line)
        try:
            self._log.write(f"{log_time(datetime.now(UTC))} {line}")
            self._fails = False
        except OSError as error:
            if not self._fails:
                fault = f"its log cannot be written ({error.strerror or error})"
                self._sink(self.name, f"{fault}; how many lines are missing will be in it")
            self._fails = True


def log_time(moment: datetime) -> str:
    """A time as it stands before each line of a log: UTC, to the millisecond, always as long."""
    plain = moment.astimezone(UTC).replace(tzinfo=None)
    return f"{plain.isoformat(timespec='milliseconds')}Z"


class LogFile:
    """Appends lines to `path`; raises OSError for a line that it cannot write, and drops that line.

    Opened by the first line, and anew after each failure. When the file takes lines again, the
    number of dropped lines is written first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._dropped = 0  #: lines, since one was written
        self._cut = False  #: the last line written has no end

    def write(self, line: str) -> None:
        """Append one line; it is in the file, though not on the disk, at return."""
        text = f"{line}\n"
        if self._dropped:
            end = "\n" if self._cut else ""
            text = f"{end}({self._dropped} lines were dropped: they could not be written)\n{text}"
        raw = text.encode(errors="replace")
        try:
            written = self._opened().write(raw)
            if written < len(raw):
                self._cut = True
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._dropped += 1
            with suppress(OSError):
                self.close()
            raise
        self._dropped, self._cut = 0, False

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            full, self._file = self._file, None
            full.close()

    def _opened(self) -> io.FileIO:
        if self._file is not None and self._file.tell() >= LOG_BYTES_MAX:
            self._path.replace(self._path.with_name(f"{self._path.name}{OLD_SUFFIX}"))
            self.close()
        if self._file is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
        return self._file


def _pieces(line: bytes) -> list[str]:
    starts = range(0, max(len(line), 1), LINE_BYTES_MAX)
    return [_text(line[start : start + LINE_BYTES_MAX]) for start in starts]


def _text(raw: bytes) -> str:
    # Tools may print any character, also such that control an operator's terminal.
    text = raw.rstrip(b"\r").decode(errors="replace")
    return DIRECTION.sub("", CONTROL.sub("", text))
