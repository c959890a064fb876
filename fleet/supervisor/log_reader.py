"""Reading the logs of a fleet's processes, also while they grow and are set aside.

Each line begins with its time, which `fleet.supervisor.output` writes. A line without a time has
that of the line before. The lines of several logs are merged by time.
"""

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fleet.supervisor.output import OLD_SUFFIX, agent_output, log_path

_TIMED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (.*)", re.DOTALL)
_LOG = re.compile(rf"(.+)\.log(?:{re.escape(OLD_SUFFIX)})?")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log."""

    time: str  #: UTC; two times compare as texts
    name: str  #: of the agent, or of the process
    text: str


class Log:
    """The log of an agent or a process."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._path = _path(folder, name)
        self._file: IO[bytes] | None = None
        self._is_new = True
        self._rest = b""  #: of a line that has no end yet
        self._time = ""

    def lines(self, last: int | None = None) -> Iterator[LogLine]:
        """The lines since the call before, and in the first call all that are kept; the `last`."""
        raw = self._raw()
        for line in raw if last is None else deque(raw, last):
            text = line.rstrip(b"\r\n")
            if found := _TIMED.match(text):
                self._time, text = found[1].decode(), found[2]
            yield LogLine(self._time, self.name, text.decode(errors="replace"))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _raw(self) -> Iterator[bytes]:
        if self._is_new:
            self._is_new = False
            self._open()
            yield from self._old()
        while True:
            yield from self._unread()
            if not self._was_set_aside():
                return
            yield from self._unread()  # written since, and before it was set aside
            self._open()

    def _open(self) -> None:
        self.close()
        self._rest = b""
        with suppress(FileNotFoundError):
            self._file = self._path.open("rb")

    def _old(self) -> Iterator[bytes]:
        """The lines of the older part, unless that is the file that was opened a moment ago."""
        with (
            suppress(FileNotFoundError),
            self._path.with_name(f"{self._path.name}{OLD_SUFFIX}").open("rb") as old,
        ):
            if self._file is None or not os.path.sameopenfile(old.fileno(), self._file.fileno()):
                yield from old

    def _unread(self) -> Iterator[bytes]:
        for line in self._file or ():
            if not line.endswith(b"\n"):
                self._rest += line
                return
            yield self._rest + line
            self._rest = b""

    def _was_set_aside(self) -> bool:
        """True when another file has the name now."""
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        return self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), now)


def names(folder: Path) -> list[str]:
    """The agents and processes that have a log there."""
    found = (_LOG.fullmatch(path.name) for path in folder.glob("*.log*"))
    return sorted({one[1].removeprefix(agent_output("")) for one in found if one})


def _path(folder: Path, name: str) -> Path:
    """The agent's log; the process's where no agent has that name."""
    paths = [log_path(folder, agent_output(name)), log_path(folder, name)]
    return next((path for path in paths if path.exists()), paths[0])
