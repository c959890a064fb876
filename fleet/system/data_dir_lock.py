"""One `fleet up` on one data folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.errors import FleetError
from fleet.system import file_lock
from fleet.system.data_dir import private


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Own `data_dir`, which is made where it is missing, until the block or the process ends.

    Raises FleetError, with the holder's pid when another process owns it, and with the reason when
    the folder cannot be used or is not this user's alone. A forked child that does not exec holds
    it too.
    """
    private(data_dir)
    path = _lock_of(data_dir)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = file_lock.acquire(path)
        if lock is None:
            # Empty in the instant between its lock and its number.
            holder = path.read_bytes()[:20].decode(errors="replace") or "unknown"
            raise FleetError(
                f"A fleet (pid {holder}) is already running on {data_dir}: stop it, "
                "or set fleet.data_dir to another folder."
            )
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    except OSError as error:
        raise unusable(data_dir, error) from error
    try:
        yield
    finally:
        os.close(lock)


def is_up(data_dir: Path) -> bool:
    """True while a `fleet up` runs on `data_dir`. Raises OSError."""
    return file_lock.is_held(_lock_of(data_dir))


def _lock_of(data_dir: Path) -> Path:
    return data_dir.absolute() / "up.lock"


def unusable(data_dir: Path, error: OSError) -> FleetError:
    """The error of a data folder that cannot be used."""
    return FleetError(
        f"The data folder {data_dir} cannot be used ({error.strerror or error}): make it "
        "writable and make room, or set fleet.data_dir to another folder."
    )
