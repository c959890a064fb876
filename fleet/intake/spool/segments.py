"""The spool's files: segments of checksummed records, each appended to by one process at a time.

A record is a line: the CRC-32 of the rest, a JSON object, and after a tab its body, if it has one.
Nothing that was written changes. A record counts once its whole line is there, so a write that was
cut short counts as never made. The writer answers after `fsync`.
"""

import errno
import json
import os
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.intake.spool.slots import Slot

#: Then a slot's next segment begins.
ROTATE_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record as it was read, and the place of its body."""

    meta: dict[str, Any]
    path: Path
    offset: int
    length: int
    size: int  #: of the whole line, in bytes


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment as far as it was read."""

    inode: int
    end: int = 0
    newest: int = 0  #: the highest `seq` in it
    damaged: bool = False  #: True once a line of it was no record


def encode(meta: dict[str, Any], body: bytes = b"") -> bytes:
    """One line. `body` must hold no line break."""
    rest = json.dumps(meta, separators=(",", ":")).encode() + (b"\t" + body if body else b"")
    return b"%08x %s\n" % (zlib.crc32(rest), rest)


def read_body(record: StoredRecord) -> bytes:
    """The body of a record. Raises OSError when its file is gone."""
    with open(record.path, "rb") as file:
        file.seek(record.offset)
        return file.read(record.length)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power loss. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class SegmentWriter:
    """Appends to the segment of this process's slot; not safe between threads."""

    def __init__(self, folder: Path, slot: Slot) -> None:
        self._folder = folder
        self._slot = slot

    def append(self, lines: Iterable[bytes]) -> None:
        """Write records, all or none, synced to disk when this returns. Raises OSError."""
        text, written = b"".join(lines), 0
        fd = os.open(self._path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end = os.fstat(fd).st_size
            # Whoever made it may have died before its name was synced; then it is empty.
            if not end:
                for folder in (self._folder, *self._folder.parents[:2]):
                    sync(folder)
            try:
                written = os.write(fd, text)
                if written != len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(fd)
            except OSError:
                # A reader may have seen a whole line. Then one byte stays, behind which nothing is
                # ever written: the file stays shorter than what was read of it.
                with suppress(OSError):
                    os.ftruncate(fd, end + (b"\n" in text[:written]))
                raise
        finally:
            os.close(fd)

    def _path(self) -> Path:
        """The segment that takes the next records."""
        slot = self._slot.acquire()
        numbers = [int(path.stem.partition("-")[2]) for path in self._folder.glob(f"{slot}-*.log")]
        last = max(numbers, default=0)
        path = self._folder / f"{slot}-{last}.log"
        if numbers and path.stat().st_size < ROTATE_BYTES and _ends_well(path):
            return path
        # Never the name of an earlier file, whose inode the new one may have.
        return self._folder / f"{slot}-{max(last + 1, time.time_ns())}.log"


class SegmentReader:
    """Reads the records that were added to a folder since it last looked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, _Segment] = {}  #: by name

    @property
    def damaged(self) -> bool:
        """True when a line was no record."""
        return any(segment.damaged for segment in self._known.values())

    def read(self, imported: int) -> tuple[bool, list[StoredRecord]]:
        """The new records; True when all records were read anew. Raises OSError, and then reads
        them the next time.

        Of one segment they come in their order. What follows the last line break may still be
        written: it is read again. A segment may be gone once everything in it is `imported`.
        """
        files = self._files()
        again = any(
            files[name][0] != was.inode or files[name][1] < was.end
            if name in files
            else was.newest > imported
            for name, was in self._known.items()
        )
        known, now, found = {} if again else self._known, {}, list[StoredRecord]()
        for name, (inode, size) in sorted(files.items()):
            now[name] = known.get(name, _Segment(inode))
            if size > now[name].end:
                with suppress(FileNotFoundError):
                    now[name], records = _read_on(self._folder / name, now[name])
                    found += records
        self._known = now
        return again, found

    def up_to(self, seq: int) -> list[tuple[Path, bool]]:
        """The segments of which no record is newer, as of the last `read`; True for damaged."""
        return [
            (self._folder / name, segment.damaged)
            for name, segment in self._known.items()
            if segment.newest <= seq
        ]

    def _files(self) -> dict[str, tuple[int, int]]:
        found = {}
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(".log"):
                    with suppress(FileNotFoundError):
                        stat = entry.stat()
                        found[entry.name] = (stat.st_ino, stat.st_size)
        return found


def read_segment(path: Path) -> list[StoredRecord]:
    """Every record of one segment. Raises OSError."""
    return _read_on(path, _Segment(0))[1]


def _ends_well(path: Path) -> bool:
    """False behind a record that was cut short: what came there could not be read."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() in (b"", b"\n")


def _read_on(path: Path, was: _Segment) -> tuple[_Segment, list[StoredRecord]]:
    """Read a segment from where it was read before; damaged lines are passed over."""
    with open(path, "rb") as file:
        file.seek(was.end)
        *lines, _torn = file.read().split(b"\n")
    found, end, damaged = list[StoredRecord](), was.end, was.damaged
    for line in lines:
        checksum, rest = line[:9], line[9:]
        if checksum == b"%08x " % zlib.crc32(rest):
            text, tab, body = rest.partition(b"\t")
            offset = end + 9 + len(text) + len(tab)
            meta = json.loads(text)
            found.append(StoredRecord(meta, path, offset, len(body), len(line) + 1))
        else:
            damaged = True
        end += len(line) + 1
    newest = max([was.newest, *(int(record.meta["seq"]) for record in found)])
    return _Segment(was.inode, end, newest, damaged), found
