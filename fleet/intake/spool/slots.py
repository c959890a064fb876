"""A number of its own for each process that writes to the spool: its files carry that number.

The kernel frees a number when its process ends, however that happens, and the next process takes
the lowest free one with the files. So each file has one writer at a time, and there are as many
files as processes that ever wrote at once.
"""

import os
import threading
from itertools import count
from pathlib import Path

from fleet.system import file_lock


class Slot:
    """This process's number; a forked child acquires another one. Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number: int | None = None
        self._lock: int | None = None
        self._pid = 0
        self._mutex = threading.RLock()

    @property
    def is_mine(self) -> bool:
        """False before the first `acquire`, and in a child that was forked since."""
        return self._number is not None and self._pid == os.getpid()

    def acquire(self) -> int:
        """The number, the same until `release`. Raises OSError."""
        with self._mutex:
            if self._number is not None and self._pid == os.getpid():
                return self._number
            self.release()
            self._folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            for number in count():
                lock = file_lock.acquire(self._folder / f"{number}.lock")
                if lock is not None:
                    self._number, self._lock, self._pid = number, lock, os.getpid()
                    return number
            raise AssertionError("unreachable")

    def release(self) -> None:
        """Leave the number to another process."""
        with self._mutex:
            if self._lock is not None:
                os.close(self._lock)  # in a forked child: its parent still holds it
            self._number = self._lock = None
