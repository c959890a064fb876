"""Locks on files: the kernel releases one once every process that has it open has closed or died.

A forked child holds its parent's lock too; a program holds it where the descriptor is passed on.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def acquire(path: Path, *, shared: bool = False) -> int | None:
    """Lock a file, which is made where it is missing: the open file, None while another has it.

    `os.close` releases it. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return lock


def is_held(path: Path) -> bool:
    """True while another has the file locked exclusively. Raises OSError.

    Its own shared lock can refuse an `acquire` for an instant: that must be tried again.
    """
    try:
        probe = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(probe)
    return False


@contextmanager
def locked(file: int) -> Iterator[None]:
    """Wait for an open file and have it alone for a moment."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
