"""The spool's files: segments of checksummed records, each appended to by one process at a time.

A record is a line: the CRC-32 of the rest, a JSON object, and after a tab its body, if it has one.
Nothing that was written changes. A record counts once its whole line is there, so a write that was
cut short counts as never made. The writer answers after `fsync`.
"""

import errno
import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.intake.spool.slots import Slot

#: Then a slot's next segment begins.
ROTATE_BYTES = 4 * 2**20
_NAME = re.compile(r"(\d+)-(\d+)\.log")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a record's body."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record as it was read."""

    meta: dict[str, Any]
    body: Place
    size: int  #: of the whole line, in bytes


def encode(meta: dict[str, Any], body: bytes = b"") -> bytes:
    """One line. `body` must hold no line break."""
    rest = json.dumps(meta, separators=(",", ":")).encode() + (b"\t" + body if body else b"")
    return b"%08x %s\n" % (zlib.crc32(rest), rest)


def read_body(place: Place) -> str:
    """The body of a record. Raises OSError when its file is gone."""
    with open(place.path, "rb") as file:
        file.seek(place.offset)
        return file.read(place.length).decode()


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
        self._path = folder
        self._fd = -1

    def append(self, lines: Iterable[bytes]) -> None:
        """Write records, all or none, synced to disk when this returns. Raises OSError."""
        text = b"".join(lines)
        fd = self._open()
        end, written = os.fstat(fd).st_size, 0
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
            # The next append looks anew where the last whole record ends.
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if self._fd >= 0:
            if self._slot.is_mine and self._is_current():
                return self._fd
            self.close()
        slot = self._slot.acquire()
        numbers = [
            int(found[2])
            for name in os.listdir(self._folder)
            if (found := _NAME.fullmatch(name)) and int(found[1]) == slot
        ]
        last = max(numbers, default=0)
        path = self._folder / f"{slot}-{last}.log"
        # Behind a record that was cut short nothing could be read.
        if not numbers or path.stat().st_size >= ROTATE_BYTES or not _ends_well(path):
            # Never the name of an earlier file, whose inode the new one may have.
            path = self._folder / f"{slot}-{max(last + 1, time.time_ns())}.log"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Whoever made it may have died before its name was synced; then it is empty.
            if not os.fstat(fd).st_size:
                for folder in (self._folder, *self._folder.parents[:2]):
                    sync(folder)
        except OSError:
            os.close(fd)
            raise
        self._fd, self._path = fd, path
        return fd

    def _is_current(self) -> bool:
        """False once the file is full, deleted, or set aside."""
        mine = os.fstat(self._fd)
        with suppress(FileNotFoundError):
            return os.path.samestat(mine, self._path.stat()) and mine.st_size < ROTATE_BYTES
        return False


class SegmentReader:
    """Reads the records that were added to a folder since it last looked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, tuple[int, int]] = {}  #: name -> inode, bytes read
        self._newest: dict[str, int] = {}  #: name -> highest `seq`
        self.damaged = False  #: True once a line was passed over

    def read(self, imported: int) -> tuple[bool, list[StoredRecord]]:
        """The new records; True when all records were read anew. Raises OSError, and then reads
        them the next time.

        Of one segment they come in their order. A line at the end that is not whole may still be
        written: it is read again. A segment may be gone once everything in it is `imported`.
        """
        files = self._files()
        again = any(
            files[name][0] != inode or files[name][1] < offset
            if name in files
            else self._newest.get(name, 0) > imported
            for name, (inode, offset) in self._read.items()
        )
        read, newest = ({}, {}) if again else (self._read, self._newest)
        now, newest, found = dict[str, tuple[int, int]](), dict(newest), list[StoredRecord]()
        damaged = self.damaged and not again
        for name, (inode, size) in sorted(files.items()):
            _, offset = read.get(name, (inode, 0))
            if size > offset:
                with suppress(FileNotFoundError):
                    records, end = _read_from(self._folder / name, offset)
                    damaged |= sum(record.size for record in records) < end - offset
                    offset = end
                    found += records
                    seqs = [int(record.meta["seq"]) for record in records]
                    newest[name] = max([*seqs, newest.get(name, 0)])
            now[name] = (inode, offset)
        self.damaged = damaged
        self._read, self._newest = now, {name: newest.get(name, 0) for name in now}
        return again, found

    def up_to(self, seq: int) -> list[Path]:
        """The segments of which no record is newer, as of the last `read`."""
        return [self._folder / name for name in self._read if self._newest.get(name, 0) <= seq]

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
    return _read_from(path, 0)[0]


def is_whole(path: Path) -> bool:
    """False when a segment has a line that is no record. Raises OSError.

    What follows the last line break was cut short, and never counted.
    """
    return all(_parse(line) is not None for line in _lines(path.read_bytes()))


def _ends_well(path: Path) -> bool:
    lines = path.read_bytes().rsplit(b"\n", 2)
    return lines[-1] == b"" and (len(lines) == 1 or _parse(lines[-2] + b"\n") is not None)


def _read_from(path: Path, offset: int) -> tuple[list[StoredRecord], int]:
    """The records from there on, and the end of the last one: damaged lines before it are passed
    over.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        text = file.read()
    found, end, at = list[StoredRecord](), offset, offset
    for line in _lines(text):
        parsed = _parse(line)
        if parsed is not None:
            meta, head = parsed
            place = Place(path, at + head, len(line) - head - 1)
            found.append(StoredRecord(meta, place, len(line)))
            end = at + len(line)
        at += len(line)
    return found, end


def _lines(text: bytes) -> Iterator[bytes]:
    start = 0
    while (end := text.find(b"\n", start)) >= 0:
        yield text[start : end + 1]
        start = end + 1


def _parse(line: bytes) -> tuple[dict[str, Any], int] | None:
    """The object of a line and the offset of its body; None for anything but a whole record."""
    if len(line) < 11 or line[8:9] != b" " or not line.endswith(b"\n"):
        return None
    rest = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(rest):
        return None
    meta, tab, _ = rest.partition(b"\t")
    return json.loads(meta), 9 + len(meta) + len(tab)
