"""The submission log: the events ever submitted to the ledger from this machine.

While the broker is away, nobody can ask the ledger for an event. The ledger may have it: a write
whose answer was lost has perhaps landed, and a sender may repeat an event of an hour before. So
every process, the drainer too, records an event's digest here before it submits the event. A
recorded event never runs from the spool. The spool records its own new events as well: a damaged
spool that is set aside no longer knows that they may have run.

The log is a file of digests to which every process appends, and the file before it: about the last
half million events. Each write is one system call and is not synced. A killed process loses no
digest, a power loss those of its last seconds.
"""

import logging
import mmap
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fleet.system.file_lock import locked

logger = logging.getLogger(__name__)

#: The size at which the next file begins: a quarter of a million digests, searched in 1 ms.
BYTES_MAX = 5 * 2**20
#: The ledger recognizes an event for about so long; an older gap means nothing.
GAP_S = 30 * 86400.0


class SubmissionLog:
    """Safe to share between threads, processes and forks."""

    def __init__(self, folder: Path, bytes_max: int = BYTES_MAX) -> None:
        self._path = folder / "offered"
        self._before = folder / "offered.1"
        #: Present once a digest could not be written: then every event counts as recorded.
        self._gap = folder / "offered.incomplete"
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._fd = -1
        self._inode = 0

    def record(self, digests: Iterable[str]) -> None:
        """Record digests, before the ledger is asked. Never raises."""
        text = b"".join(map(bytes.fromhex, digests))
        try:
            with self._lock:
                fd = self._open()
                if os.write(fd, text) != len(text):
                    raise OSError("written in part")
                if os.fstat(fd).st_size >= self._bytes_max:
                    self._begin_next()
        except OSError as error:
            self._record_gap(error)

    def has(self, digest: str) -> bool:
        """True when the ledger may have this event, and when that is unknown."""
        wanted = bytes.fromhex(digest)
        try:
            with suppress(FileNotFoundError):
                if time.time() - self._gap.stat().st_mtime < GAP_S:
                    return True
            return any(_is_in(path, wanted) for path in (self._path, self._before))
        except OSError as error:
            logger.warning(
                "the submission log in fleet.data_dir cannot be read: %s", error.strerror
            )
            return True

    def _open(self) -> int:
        try:
            current = self._path.stat().st_ino
        except FileNotFoundError:
            current = 0
        if self._fd < 0 or current != self._inode:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            self._inode = os.fstat(self._fd).st_ino
        return self._fd

    def _begin_next(self) -> None:
        # Of all that come here at once one renames, and only the file that it has open.
        with locked(self._fd):
            if self._path.stat().st_ino == self._inode:
                self._path.replace(self._before)

    def _record_gap(self, error: OSError) -> None:
        logger.warning("%s cannot be written: %s", self._path, error.strerror or error)
        # Renaming needs no room. Where even that fails, the spool beside it is unusable too.
        with suppress(OSError):
            if self._path.exists():
                self._path.replace(self._gap)
            self._gap.touch(mode=0o600)


def _is_in(path: Path, wanted: bytes) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(file).st_size == 0:
            return False
        with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as memory:
            # Digests are random: none begins inside another.
            return memory.find(wanted) >= 0
    finally:
        os.close(file)
