"""A number of its own for each process that writes to the spool: its files carry that number.

The kernel frees a number when its process ends, however that happens, and the next process takes
the lowest free one with the files. So each file has one writer at a time, and there are as many
files as processes that ever wrote at once.
"""

import os
import threading
from pathlib import Path

from fleet.system import file_lock


class Slot:
    """This process's number; a forked child acquires another one. Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._lock: int | None = None
        self._pid = 0
        self._mutex = threading.RLock()

    def acquire(self) -> int:
        """The number, the same until `release`. Raises OSError."""
        with self._mutex:
            if self._lock is not None and self._pid == os.getpid():
                return self._number
            self.release()
            self._folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            number = 0
            while (lock := file_lock.acquire(self._folder / f"{number}.lock")) is None:
                number += 1
            self._number, self._lock, self._pid = number, lock, os.getpid()
            return number

    def release(self) -> None:
        """Leave the number to another process."""
        with self._mutex:
            if self._lock is not None:
                os.close(self._lock)  # in a forked child: its parent still holds it
            self._lock = None
