"""The spool's flag: a few bytes that every process of a data folder has in its memory."""

import mmap
import os
import struct
from pathlib import Path

_EMPTY = b"\0"
#: Whether the spool holds anything, how many events were refused, up to where the ledger has them,
#: and of which file that is true. It takes no room on a disk that has become full.
_FLAG = struct.Struct("=c3xIQ16s")
_REFUSED, _DONE = slice(4, 8), slice(8, 32)


class Flag:
    """Mapped by `open`; until then nothing is held and nothing counted."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "flag"
        self._memory: mmap.mmap | None = None

    @property
    def is_open(self) -> bool:
        """Whether this process has mapped it."""
        return self._memory is not None

    @property
    def exists(self) -> bool:
        """Whether any process has made it yet."""
        return self._path.exists()

    def open(self) -> None:
        """Map it, and make it where there is none. Raises OSError."""
        if self._memory is not None:
            return
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(file).st_size < _FLAG.size:
                os.pwrite(file, bytes(_FLAG.size), 0)
            self._memory = mmap.mmap(file, _FLAG.size)
        finally:
            os.close(file)

    @property
    def holds(self) -> bool:
        """True while anything waits in the spool."""
        return self._memory is not None and self._memory[:1] != _EMPTY

    @holds.setter
    def holds(self, holds: bool) -> None:
        if self._memory is not None:
            self._memory[:1] = b"\1" if holds else _EMPTY

    def done(self, file: bytes) -> int:
        """Up to where the ledger has what is in the file of that name."""
        if self._memory is None:
            return 0
        done, told = struct.unpack("=Q16s", self._memory[_DONE])
        return int(done) if told == file else 0

    def set_done(self, last: int, file: bytes) -> None:
        """The ledger has everything up to `last`."""
        if self._memory is not None and last > self.done(file):
            self._memory[_DONE] = struct.pack("=Q16s", last, file)

    def count_refused(self, events: int) -> None:
        """So many were refused; about, when several processes count at the same instant."""
        if self._memory is not None:
            self._memory[_REFUSED] = struct.pack("=I", min(self.refused + events, 2**32 - 1))

    @property
    def refused(self) -> int:
        """How many were refused since they were last taken."""
        return 0 if self._memory is None else int(_FLAG.unpack_from(self._memory)[1])

    def take_refused(self) -> int:
        """The same, which is then told."""
        refused = self.refused
        if refused and self._memory is not None:
            self._memory[_REFUSED] = bytes(4)
        return refused
