"""Finding what a turn's tools started, in whatever session or process group it hides.

A program inherits its environment from who started it. So a worker and the child that runs its
turns each leave a mark in their own, and when one of them has died, every program that carries its
mark is killed. Linux only; elsewhere sessions and process groups must do.

Nobody is left to do that for a worker that was killed itself, and its programs would go on beside
the agent's next turn. So a child also marks what it starts with the lease that it works under.
Before its own first claim it kills what an older lease has left on this machine (`take_over`).
"""

import contextlib
import hashlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fleet.system import process_identity

#: Tells this fleet's processes from another's; forked ones share it.
_TOKEN = secrets.token_hex(8)
#: How long `take_over` waits; after SIGKILL only the kernel's own work is left.
_TIMEOUT_S = 4.0
_POLL_INTERVAL_S = 0.01
#: See `signs`.
_signs: dict[str, int] = {}


class ProcessTag(StrEnum):
    """Whose mark it is."""

    WORKER = "FLEET_MARK_WORKER"
    CHILD = "FLEET_MARK_CHILD"
    #: Of a child, for one that it starts to stay over turns; left in that one's environment only.
    TERMINAL = "FLEET_MARK_TERMINAL"
    #: Of a child, with the right by which it runs the turns of its agent: see `Owner`.
    OWNER = "FLEET_MARK_OWNER"


@dataclass(frozen=True, slots=True)
class Owner:
    """The child that runs an agent's turns on this machine, and by what right it does."""

    #: The agent in its data folder.
    home: str
    #: The agent in this life of its store, and the fencing token; '' and 0 without the store.
    store: str
    fence: int
    worker: str
    child: str

    @classmethod
    def here(cls, data_dir: Path, agent: str, epoch: str, fence: int) -> "Owner":
        """The calling process, whose parent is the worker."""
        home = _digest(f"{data_dir.absolute()}/{agent}")
        store = epoch and _digest(f"{epoch}/{agent}")
        return cls(
            home, store, fence, process_identity.identity(os.getppid()), process_identity.identity()
        )

    @classmethod
    def read(cls, text: str) -> "Owner":
        """Raises ValueError for what `str` has not made."""
        home, store, fence, worker, child = text.split("|")
        return cls(home, store, int(fence), worker, child)

    def __str__(self) -> str:
        return f"{self.home}|{self.store}|{self.fence}|{self.worker}|{self.child}"

    def follows(self, other: "Owner") -> bool:
        """True when the other one has no right any more to run this one's agent.

        Its token is older, whether it lives or not; or it has certainly ended.
        """
        if other.store == self.store and other.fence < self.fence:
            return True
        dead = process_identity.is_gone(other.worker) or process_identity.is_gone(other.child)
        return other.home == self.home and dead


def tag_environment(mark: ProcessTag) -> None:
    """From now on whatever this process starts can be found by its pid."""
    os.environ[mark] = of_this_process()


def of_this_process() -> str:
    """What a mark of this process holds."""
    return f"{_TOKEN}.{os.getpid()}"


def kill_tagged(mark: ProcessTag, pid: int) -> None:
    """SIGKILL every program that a process of this fleet, which had that pid, has started."""
    if sys.platform != "linux":
        return
    wanted = f"{mark}={_TOKEN}.{pid}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)


def take_over(owner: Owner) -> list[int]:
    """Kill what earlier owners left running, and mark as the owner's all that is started from now.

    Answers what is not known to have ended in time: then nothing is marked, and no turn may begin.
    """
    if sys.platform != "linux":
        return []
    began = time.monotonic()
    while left := {pid: kept for pid, other, kept in _owned() if owner.follows(other)}:
        waited_s = time.monotonic() - began
        if waited_s > _TIMEOUT_S:
            return sorted(left)
        for pid, kept in left.items():
            if not kept or waited_s > _TIMEOUT_S / 2:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        for pid in left:
            process_identity.await_end(pid, _POLL_INTERVAL_S)
    mark = f"{ProcessTag.OWNER}={owner}"
    os.environ[ProcessTag.OWNER] = str(owner)
    if mark not in _signs:
        _signs[mark] = os.memfd_create(mark)
    return []


def signs() -> tuple[int, ...]:
    """Descriptors to leave open in a program: it is found by them whatever its environment becomes.

    Each is a file in memory with the mark as its name. A process that was only forked has it
    anyway; its environment is, to others, that of the program which it was forked from.
    """
    return tuple(_signs.values())


def _owned() -> Iterator[tuple[int, Owner, bool]]:
    """Each process that works for an owner; True for one that only keeps the mark for another.

    A tool server's keeper does so. It ends when its program has, and with all that this has left.
    """
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            for name, text in _marks_of(f"/proc/{pid}"):
                with contextlib.suppress(ValueError):
                    yield int(pid), Owner.read(text), name != ProcessTag.OWNER


def _marks_of(process: str) -> Iterator[tuple[str, str]]:
    # Another user's cannot be read; what has just ended or been closed is no longer there.
    with contextlib.suppress(OSError):
        environment = os.fsdecode(Path(process, "environ").read_bytes())
        for variable in environment.split("\0") if ProcessTag.OWNER in environment else ():
            name, _, text = variable.partition("=")
            if name.endswith(ProcessTag.OWNER):
                yield name, text
    with contextlib.suppress(OSError):
        for number in os.listdir(f"{process}/fd"):
            with contextlib.suppress(OSError):
                name, _, text = os.readlink(f"{process}/fd/{number}").partition("=")
                if name == f"/memfd:{ProcessTag.OWNER}":
                    yield ProcessTag.OWNER, text.removesuffix(" (deleted)")


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
