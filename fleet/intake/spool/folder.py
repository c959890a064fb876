"""The spool's folder: the state on disk, the lock of those who store, the broker it stands for."""

import errno
import logging
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fleet.errors import BrokerUnavailable
from fleet.intake.spool import segments
from fleet.intake.spool.segments import SegmentReader, SegmentWriter
from fleet.intake.spool.slots import Slot
from fleet.intake.spool.state import SpoolState
from fleet.system import file_lock, files

logger = logging.getLogger(__name__)

#: Longer than the milliseconds of another process's batch.
LOCK_TIMEOUT_S = 5.0
LOCK_POLL_S = 0.005
#: The last event that the ledger has; the refused events that were reported; the CRC-32 of both.
_PROGRESS = struct.Struct("=QQI")


class SpoolFull(BrokerUnavailable):
    """The spool accepts nothing: nothing was stored."""


@contextmanager
def usable() -> Iterator[None]:
    """Raise SpoolFull where an OSError ends the block."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fault = "the disk of the spool in fleet.data_dir is full: make room there."
        else:
            reason = error.strerror or error
            fault = (
                f"the spool in fleet.data_dir cannot be used ({reason}): make room, or make it "
                "writable."
            )
        raise SpoolFull(fault) from error


def _progress(imported: int, reported: int) -> bytes:
    return _PROGRESS.pack(imported, reported, zlib.crc32(struct.pack("=QQ", imported, reported)))


class SpoolFolder:
    """Safe to share between threads; each process, also a forked one, needs its own.

    Only the writer of a segment changes it, and only the drainer writes the other files. Every
    method except `holds` raises SpoolFull with one sentence when the files cannot be used.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        """`identity` names the broker. Opens nothing yet."""
        self.folder = folder
        self._identity = identity
        self.slot = Slot(folder / "slots")
        self.segments = folder / "segments"
        self._holds = folder / "holds"
        self._progress = folder / "imported"
        self._broker = folder / "broker"
        self._older = folder / "flag"
        self._writer = SegmentWriter(self.segments, self.slot)
        self._reader = SegmentReader(self.segments)
        self._state = SpoolState()
        self._lock = threading.RLock()

    @property
    def holds(self) -> bool:
        """True while an event waits; costs next to nothing."""
        return self._holds.exists()

    @property
    def is_damaged(self) -> bool:
        """True when a record could not be read: perhaps it told that a turn has run."""
        return self._reader.damaged or not self._state.is_readable

    def append(self, *metas: dict[str, Any]) -> None:
        """Write records of runs, synced to disk and in the state when this returns."""
        with self._lock, usable():
            self._writer.append(segments.encode(meta) for meta in metas)
            self._refresh()

    @contextmanager
    def view(self) -> Iterator[SpoolState]:
        """The state as it is on the disk now; another thread waits until the block ends."""
        with self._lock, usable():
            self._refresh()
            yield self._state

    @contextmanager
    def alone(self) -> Iterator[SpoolState]:
        """The state, while no other process stores events or deletes any: they are all synced, or
        their writer has died.
        """
        with self._lock, usable():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.segments.mkdir(exist_ok=True, mode=0o700)
            lock = self._await_lock()
            try:
                self.check_older()
                self._refresh()
                yield self._state
            finally:
                os.close(lock)

    def check_older(self) -> None:
        """Raise SpoolFull while the spool of an older version of fleet holds events."""
        # The first byte of its file tells.
        with suppress(FileNotFoundError):
            if self._older.read_bytes()[:1] not in (b"", b"\0"):
                # From now on no process submits an event: it may be one of those.
                self._holds.touch(mode=0o600)
                raise SpoolFull(
                    "fleet.data_dir holds a spool.db with events, which only the version of fleet "
                    "that wrote it can read: start that version until the spool is empty."
                )

    def _await_lock(self) -> int:
        until = time.monotonic() + LOCK_TIMEOUT_S
        while (lock := file_lock.acquire(self.folder / "lock")) is None:
            if time.monotonic() > until:
                raise SpoolFull(
                    "the spool in fleet.data_dir stays locked by another process: send it again."
                )
            time.sleep(LOCK_POLL_S)
        return lock

    def _refresh(self) -> None:
        imported, _ = self.read_progress()
        again, records = self._reader.read(imported)
        if again:
            self._state.clear()
        self._state.forget(imported)
        self._state.apply(records)

    def read_progress(self) -> tuple[int, int]:
        """The last event that the ledger has, and the refused events that were reported.

        Of a damaged file both are 0: what is imported again is a duplicate.
        """
        try:
            text = self._progress.read_bytes()
        except FileNotFoundError:
            return 0, 0
        if len(text) == _PROGRESS.size:
            imported, reported, _ = _PROGRESS.unpack(text)
            if text == _progress(imported, reported):
                return imported, reported
        if text:
            files.set_aside(self._progress, "its checksum is wrong")
        return 0, 0

    def write_progress(self, imported: int, reported: int) -> None:
        """Record both; for the drainer."""
        # In place, so that a full disk does not stop the import that makes room.
        fd = os.open(self._progress, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, _progress(imported, reported), 0)
        finally:
            os.close(fd)

    def delete_imported(self, imported: int) -> None:
        """Delete each segment of which the ledger has everything; a damaged one is set aside."""
        for path, damaged in self._reader.up_to(imported):
            if not damaged:
                path.unlink()
                continue
            aside = self.folder / "damaged"
            aside.mkdir(exist_ok=True, mode=0o700)
            path.rename(aside / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-{path.name}")
            logger.error(
                "a segment of the spool in fleet.data_dir was damaged and is set aside: "
                "events may be in it; keep it, and send again."
            )

    def _read_identity(self) -> str:
        with suppress(FileNotFoundError):
            return self._broker.read_text()
        return ""

    def damaged(self) -> list[str]:
        """The names of segments with bytes that could not be read, set aside."""
        return sorted(path.name for path in (self.folder / "damaged").glob("*"))

    def adopt(self) -> None:
        """Make this the spool of this process's broker; for the drainer, before anything else."""
        with self.alone() as state:
            if state.entries:
                self.check_identity()
            files.replace(self._broker, self._identity, sync=True)

    @property
    def is_ours(self) -> bool:
        """True when its drainer works for the broker of this process."""
        return self._read_identity() == self._identity

    def check_identity(self) -> None:
        """Raise SpoolFull where it stands for another broker than this process's."""
        found = self._read_identity()
        if found not in ("", self._identity):
            raise SpoolFull(
                f"the spool in fleet.data_dir belongs to another broker ({found}): start the fleet "
                "with that broker's address until it is empty, or use another fleet.data_dir."
            )

    def close(self) -> None:
        """Leave its files to another process."""
        self.slot.release()
