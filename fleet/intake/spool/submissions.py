"""The submissions: the events ever submitted to the ledger from this machine.

While the broker is away, nobody can ask the ledger for an event. The ledger may have it: a write
whose answer was lost has perhaps landed, and a sender may repeat an event of an hour before. So
every process, the drainer too, records an event's digest here before it submits the event. A
recorded event never runs from the spool.

Each process has a Bloom filter of its own in a file. It knows every recorded digest; of a hundred
others it takes a few for recorded, which then wait for the ledger. It has two halves: when one is
full, the other is emptied. A half has room for more events than the ledger remembers. A killed
process loses no digest, a power loss those of its last seconds.
"""

import errno
import logging
import os
import re
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fleet.config.settings import Settings
from fleet.intake.spool.slots import Slot

logger = logging.getLogger(__name__)

#: A digest sets seven bits of one block: then 1 of 100 others seems to be recorded too.
_BLOCK = 64
_BITS = 7
_BITS_PER_EVENT = 12
_BYTES_MIN = 2**20
#: The half that is filled; the events in it; the events that this slot's processes refused.
_HEADER = struct.Struct("=QQQ")
#: The ledger recognizes an event for about so long; an older gap means nothing.
GAP_S = 30 * 86400.0
_NAME = re.compile(r"\d+\.(\d+)\.submitted")


class Submissions:
    """Safe to share between threads and over forks; each process writes a file of its own."""

    def __init__(self, folder: Path, slot: Slot, settings: Settings) -> None:
        self._folder = folder
        self._slot = slot
        known = 2 * settings.retention.max + settings.caps.max_waiting + settings.spool.max_events
        size = max(_BYTES_MIN, known * _BITS_PER_EVENT // 8)
        self._blocks = -(-size // _BLOCK)
        #: The events in one half.
        self._room = size * 8 // _BITS_PER_EVENT
        self._lock = threading.Lock()
        #: Present once a digest could not be recorded: then every event counts as recorded.
        self._gap = folder / "unrecorded"

    def record(self, digests: Iterable[str], *, sync: bool = False) -> None:
        """Record digests, before the ledger is asked.

        Raises OSError where not even the failure can be recorded: then it must not be asked.
        """
        try:
            with self._file() as fd:
                half, events, refused = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
                for digest in digests:
                    if events >= self._room:
                        half, events = 1 - half, 0
                        _write(fd, bytes(self._blocks * _BLOCK), self._start(half))
                    at, bits = _bits_of(digest, self._blocks)
                    at += self._start(half)
                    block = int.from_bytes(os.pread(fd, _BLOCK, at), "little") | bits
                    _write(fd, block.to_bytes(_BLOCK, "little"), at)
                    events += 1
                _write(fd, _HEADER.pack(half, events, refused), 0)
                if sync:
                    os.fsync(fd)
        except OSError as error:
            logger.warning("a submission cannot be recorded (%s)", error.strerror or error)
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._gap.touch(mode=0o600)

    def adopt_older(self, folder: Path) -> None:
        """Record what an older version of fleet recorded there, in files of digests.

        Raises OSError; what is recorded twice does no harm.
        """
        for name in ("offered.1", "offered"):
            with suppress(FileNotFoundError):
                text = (folder / name).read_bytes()
                digests = (text[at : at + 20].hex() for at in range(0, len(text) - 19, 20))
                self.record(digests, sync=True)
                (folder / name).unlink()
        # Its time counts: it keeps it.
        with suppress(FileNotFoundError):
            (folder / "offered.incomplete").replace(self._gap)

    def has(self, digest: str) -> bool:
        """True when the ledger may have this event, and when that is unknown."""
        try:
            with suppress(FileNotFoundError):
                if time.time() - self._gap.stat().st_mtime < GAP_S:
                    return True
            return any(_has(path, blocks, digest) for path, blocks in self._files())
        except OSError as error:
            logger.warning("the submissions in fleet.data_dir cannot be read: %s", error.strerror)
            return True

    def count_refused(self, events: int) -> None:
        """Count events that neither broker nor spool accepted. Never raises."""
        with suppress(OSError), self._file() as fd:
            half, held, refused = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
            _write(fd, _HEADER.pack(half, held, refused + events), 0)

    def refused(self) -> int:
        """The events ever refused on this machine."""
        total = 0
        for path, _ in self._files():
            with suppress(OSError), open(path, "rb") as file:
                total += _HEADER.unpack(file.read(_HEADER.size).ljust(_HEADER.size, b"\0"))[2]
        return total

    def _files(self) -> list[tuple[Path, int]]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return [
            (self._folder / name, int(found[1]))
            for name in names
            if (found := _NAME.fullmatch(name))
        ]

    @contextmanager
    def _file(self) -> Iterator[int]:
        """This process's file, for one thread at a time."""
        size = _size(self._blocks)
        with self._lock:
            # The name has the size: with other limits, a new file begins beside the old one.
            path = self._folder / f"{self._slot.acquire()}.{self._blocks}.submitted"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if (found := os.fstat(fd).st_size) < size:
                    if found:  # it was cut short: what it held is unknown
                        self._gap.touch(mode=0o600)
                    os.ftruncate(fd, size)
                yield fd
            finally:
                os.close(fd)

    def _start(self, half: int) -> int:
        return _BLOCK + half * self._blocks * _BLOCK


def _size(blocks: int) -> int:
    return _BLOCK + 2 * blocks * _BLOCK


def _bits_of(digest: str, blocks: int) -> tuple[int, int]:
    """The offset of a digest's block in a half, and its bits there."""
    raw = bytes.fromhex(digest)
    number, bits = int.from_bytes(raw[8:20], "little"), 0
    for _ in range(_BITS):
        bits |= 1 << (number & 511)
        number >>= 9
    return int.from_bytes(raw[:8], "little") % blocks * _BLOCK, bits


def _has(path: Path, blocks: int, digest: str) -> bool:
    at, bits = _bits_of(digest, blocks)
    with open(path, "rb", buffering=0) as file:
        if 0 < os.fstat(file.fileno()).st_size < _size(blocks):
            return True
        for half in (0, 1):
            file.seek(_BLOCK + half * blocks * _BLOCK + at)
            if int.from_bytes(file.read(_BLOCK), "little") & bits == bits:
                return True
    return False


def _write(fd: int, data: bytes, at: int) -> None:
    if os.pwrite(fd, data, at) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
