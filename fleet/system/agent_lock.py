"""One machine's knowledge of its agents without the store: who may run a turn, and who is paused.

The lease is in the store. While the store is away turns may run from the spool
(`fleet.intake.spool`). A worker that comes back with the store must not run a second turn beside
such a one. So where turns run from the spool, every runner of an agent's turns on this machine
holds the agent's file lock too. Workers, each with its child, share it for as long as they live,
and the lease decides between them. The process that runs spooled events has it alone.
"""

import os
from pathlib import Path

from fleet.errors import FleetError
from fleet.system import file_lock


class TurnLock:
    """The right of one process, and those forked from it, to run an agent's turns here."""

    def __init__(self, data_dir: Path, agent: str) -> None:
        self._path = _folder(data_dir) / f"{agent}.lock"
        self._fd: int | None = None

    def acquire(self, *, shared: bool = False) -> bool:
        """True when this process has it, now or before: alone, or `shared` with others.

        Raises FleetError where no lock can be kept.
        """
        if self._fd is None:
            try:
                self._fd = file_lock.acquire(self._path, shared=shared)
            except OSError as error:
                raise _unusable(error) from error
        return self._fd is not None

    def release(self) -> None:
        """Let another process have it, once no forked process holds it any more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def record_paused(data_dir: Path, agent: str, paused: bool) -> None:
    """Record that an agent is paused, or not. Raises FleetError when that cannot be written."""
    file = _folder(data_dir) / f"{agent}.paused"
    try:
        if paused:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file.touch(mode=0o600)
        else:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(error) from error


def is_paused(data_dir: Path, agent: str) -> bool:
    """True when it was paused while the store was last there."""
    return (_folder(data_dir) / f"{agent}.paused").exists()


def _folder(data_dir: Path) -> Path:
    return data_dir.absolute() / "agents"


def _unusable(error: OSError) -> FleetError:
    return FleetError(
        f"fleet.data_dir cannot be used ({error.strerror or error}): make it writable."
    )
