"""The spool's flag: a few bytes that every process of a data folder maps into its memory."""

import mmap
import os
import struct
from pathlib import Path

_EMPTY = b"\0"
#: The spool holds events; the number of refused ones; the last event that the ledger has, with the
#: file that has it; the last event that the ledger may have, likewise. Changes need no disk space.
_FLAG = struct.Struct("=c3xIQ16sQ16s")
_REFUSED, _IMPORTED, _SUBMITTED = slice(4, 8), slice(8, 32), slice(32, 56)


class Flag:
    """A mapped file; until `open` it holds nothing and counts nothing."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "flag"
        self._memory: mmap.mmap | None = None

    @property
    def is_open(self) -> bool:
        """True once this process has mapped it."""
        return self._memory is not None

    @property
    def exists(self) -> bool:
        """True once any process has made it."""
        return self._path.exists()

    def open(self) -> None:
        """Map the file, made at need. Raises OSError."""
        if self._memory is not None:
            return
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(file).st_size
            if size < _FLAG.size:  # of an older version
                os.pwrite(file, bytes(_FLAG.size - size), size)
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

    def imported(self, file: bytes) -> int:
        """The last event of that file that the ledger has."""
        return self._bound(_IMPORTED, file)

    def set_imported(self, last: int, file: bytes) -> None:
        """Record that the ledger has everything up to `last`."""
        self._set_bound(_IMPORTED, last, file)

    def submitted(self, file: bytes) -> int:
        """The last event of that file that the ledger may have."""
        return self._bound(_SUBMITTED, file)

    def set_submitted(self, last: int, file: bytes) -> None:
        """Record that the ledger may have everything up to `last`."""
        self._set_bound(_SUBMITTED, last, file)

    def _bound(self, where: slice, file: bytes) -> int:
        if self._memory is None:
            return 0
        last, owner = struct.unpack("=Q16s", self._memory[where])
        return int(last) if owner == file else 0

    def _set_bound(self, where: slice, last: int, file: bytes) -> None:
        if self._memory is not None and last > self._bound(where, file):
            self._memory[where] = struct.pack("=Q16s", last, file)

    def count_refused(self, events: int) -> None:
        """Count refused events; inexact when several processes count at the same instant."""
        if self._memory is not None:
            self._memory[_REFUSED] = struct.pack("=I", min(self.refused + events, 2**32 - 1))

    @property
    def refused(self) -> int:
        """The events refused since `pop_refused`."""
        return 0 if self._memory is None else int(_FLAG.unpack_from(self._memory)[1])

    def pop_refused(self) -> int:
        """The same, reset to 0."""
        refused = self.refused
        if refused and self._memory is not None:
            self._memory[_REFUSED] = bytes(4)
        return refused
