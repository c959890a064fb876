"""One `fleet up` on one data folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.errors import FleetError


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Own `data_dir`, which is made where it is missing, until the block or the process ends.

    Raises FleetError that names the holder's pid when another process owns it, and one that says
    why when the folder cannot be used. A forked child that does not exec holds it too.
    """
    path = data_dir.absolute() / "up.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(data_dir, error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
        except BlockingIOError as error:
            # Empty in the instant between its lock and its number.
            holder = os.read(lock, 20).decode(errors="replace") or "unknown"
            raise FleetError(
                f"A fleet (pid {holder}) is already running on {data_dir}: stop it, "
                "or set fleet.data_dir to another folder."
            ) from error
        except OSError as error:
            raise _unusable(data_dir, error) from error
        yield
    finally:
        os.close(lock)


def _unusable(data_dir: Path, error: OSError) -> FleetError:
    return FleetError(
        f"The data folder {data_dir} cannot be used ({error.strerror or error}): make it writable "
        "and make room, or set fleet.data_dir to another folder."
    )
