"""Which events were ever offered to the ledger from this machine: so that none of them runs twice.

While the broker is away the ledger cannot be asked whether it has an event. It may: a write whose
answer was lost has perhaps landed, and a sender may repeat what was accepted an hour before. So
whoever offers an event to the ledger, the spool's keeper too, first writes its digest here, and
what stands here is kept for the ledger and never run before. The door also writes down what the
spool took, which may run from there: a damaged spool that is set aside knows it no more.

One file of digests, appended to by every process, and the one before it: about the last half
million events. Each write is one system call and is not synced: a killed process loses none, a
power loss those of its last seconds.
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

#: Of a file, before the next is begun: a quarter of a million digests, looked through in 1 ms.
BYTES_MAX = 5 * 2**20
#: The ledger knows an event again for about so long; then a gap means nothing any more.
GAP_S = 30 * 86400.0


class SubmissionLog:
    """Safe to share between threads, processes and forks."""

    def __init__(self, folder: Path, bytes_max: int = BYTES_MAX) -> None:
        self._path = folder / "offered"
        self._before = folder / "offered.1"
        #: A digest could not be written: from then on nothing is known for certain.
        self._gap = folder / "offered.incomplete"
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._fd = -1
        self._inode = 0

    def record(self, digests: Iterable[str]) -> None:
        """These are offered now: call it before the ledger is asked. Never raises."""
        text = b"".join(map(bytes.fromhex, digests))
        try:
            with self._lock:
                fd = self._open()
                if os.write(fd, text) != len(text):
                    raise OSError("written in part")
                if os.fstat(fd).st_size >= self._bytes_max:
                    self._begin_next()
        except OSError as error:
            self._tell_gap(error)

    def has(self, digest: str) -> bool:
        """Whether the ledger may have this event; True also where that is not known."""
        wanted = bytes.fromhex(digest)
        try:
            with suppress(FileNotFoundError):
                if time.time() - self._gap.stat().st_mtime < GAP_S:
                    return True
            return any(_is_in(path, wanted) for path in (self._path, self._before))
        except OSError as error:
            logger.warning("what was offered to the ledger cannot be read: %s", error.strerror)
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
        # Of all who come here at once one renames, and only the file that it looked at.
        with locked(self._fd):
            if self._path.stat().st_ino == self._inode:
                self._path.replace(self._before)

    def _tell_gap(self, error: OSError) -> None:
        logger.warning("%s cannot be written: %s", self._path, error.strerror or error)
        # A renaming needs no room. Where not even that goes, the spool beside it cannot be used.
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
            # Digests are random: one that begins inside another is not to be expected.
            return memory.find(wanted) >= 0
    finally:
        os.close(file)
