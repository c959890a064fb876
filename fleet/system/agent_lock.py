"""What the processes of one machine know of its agents without the store: who may run a turn now.

The lease is in the store. While that is away turns may run from the spool (`fleet.intake.spool`),
and a worker that comes back with the store must not run a second one beside such a turn. So where
turns run from the spool, whoever runs an agent's turns on this machine holds the agent's file lock
too: workers, each with its child, share it for as long as they live, and the lease decides between
them; the process that runs kept events has it alone. The kernel gives it back when its holder has
died, however that happened.
"""

import fcntl
import os
from pathlib import Path

from fleet.errors import FleetError


class TurnLock:
    """The right of one process, and those forked from it, to run an agent's turns here."""

    def __init__(self, data_dir: Path, agent: str) -> None:
        self._path = _folder(data_dir) / f"{agent}.lock"
        self._fd: int | None = None

    def acquire(self, *, shared: bool = False) -> bool:
        """True when it is ours, now or before: alone, or `shared` with others who share it.

        Raises FleetError where no lock can be kept.
        """
        if self._fd is None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise _unusable(error) from error
            try:
                fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return False
            self._fd = fd
        return True

    def release(self) -> None:
        """Let another process have it, once no forked process holds it any more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def record_paused(data_dir: Path, agent: str, paused: bool) -> None:
    """Remember that an agent is paused, or is not. Raises FleetError when that cannot be kept."""
    mark = _folder(data_dir) / f"{agent}.paused"
    try:
        if paused:
            mark.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            mark.touch(mode=0o600)
        else:
            mark.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(error) from error


def is_paused(data_dir: Path, agent: str) -> bool:
    """Whether it was paused when the store was last there."""
    return (_folder(data_dir) / f"{agent}.paused").exists()


def _folder(data_dir: Path) -> Path:
    return data_dir.absolute() / "agents"


def _unusable(error: OSError) -> FleetError:
    return FleetError(
        f"fleet.data_dir cannot be used ({error.strerror or error}): make it writable."
    )
