"""Finding what a turn's tools started, in whatever session or process group it hides.

A program inherits its environment from who started it. So a worker and the child that runs its
turns each leave a mark in their own, and when one of them has died, every program that carries its
mark is killed. Linux only; elsewhere sessions and process groups must do.
"""

import contextlib
import os
import secrets
import signal
import sys
from enum import StrEnum
from pathlib import Path

#: Tells this fleet's processes from another's; forked ones share it.
_TOKEN = secrets.token_hex(8)


class Mark(StrEnum):
    """Whose mark it is."""

    WORKER = "FLEET_MARK_WORKER"
    CHILD = "FLEET_MARK_CHILD"
    #: Of a child, for one that it starts to stay over turns; left in that one's environment only.
    TERMINAL = "FLEET_MARK_TERMINAL"


def leave(mark: Mark) -> None:
    """From now on whatever this process starts can be found by its pid."""
    os.environ[mark] = of_this_process()


def of_this_process() -> str:
    """What a mark of this process holds."""
    return f"{_TOKEN}.{os.getpid()}"


def kill_marked(mark: Mark, pid: int) -> None:
    """SIGKILL every program that a process of this fleet, which had that pid, has started."""
    if sys.platform != "linux":
        return
    wanted = f"{mark}={_TOKEN}.{pid}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
