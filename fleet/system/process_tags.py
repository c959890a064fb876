"""Tags by which the programs of a turn's tools are found, in whatever session or process group.

A program inherits its environment from its starter. So a worker and the child that runs its turns
each put a tag into their own. When one of them has died, every program with its tag is killed.
Linux only; elsewhere sessions and process groups must do.

Nobody is left to do that for a worker that was killed itself, and its programs would run on beside
the agent's next turn. So a child also tags its programs with the lease that it works under. Before
its own first claim it kills the programs of older leases on this machine (`take_over`).
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

#: Distinguishes this fleet's processes from another's; forks share it.
_TOKEN = secrets.token_hex(8)
#: How long `take_over` waits; after SIGKILL only the kernel's own work is left.
_TIMEOUT_S = 4.0
_POLL_INTERVAL_S = 0.01
#: See `tag_descriptors`.
_descriptors: dict[str, int] = {}
#: True in a child of a pool.
_owner_is_turn = False


class ProcessTag(StrEnum):
    """The owner of a tag."""

    WORKER = "FLEET_MARK_WORKER"
    CHILD = "FLEET_MARK_CHILD"
    #: A child's terminal program, which stays over turns; in that program's environment only.
    TERMINAL = "FLEET_MARK_TERMINAL"
    #: A child, with the right by which it runs its agent's turns: see `Owner`.
    OWNER = "FLEET_MARK_OWNER"


@dataclass(frozen=True, slots=True)
class Owner:
    """The child that runs an agent's turns on this machine, and its right to do so."""

    #: The agent in its data folder.
    home: str
    #: The agent in this epoch of its store, and the fencing token; '' and 0 without the store.
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
        """The inverse of `str`. Raises ValueError for any other text."""
        home, store, fence, worker, child = text.split("|")
        return cls(home, store, int(fence), worker, child)

    def __str__(self) -> str:
        return f"{self.home}|{self.store}|{self.fence}|{self.worker}|{self.child}"

    def follows(self, other: "Owner") -> bool:
        """True when `other` has no right any more to run this owner's agent.

        Its token is older, alive or not; or it has certainly ended.
        """
        if other.store == self.store and other.fence < self.fence:
            return True
        dead = process_identity.is_gone(other.worker) or process_identity.is_gone(other.child)
        return other.home == self.home and dead


def tag_environment(tag: ProcessTag) -> None:
    """Make every program that this process starts from now on findable by its pid."""
    os.environ[tag] = tag_value()


def own_tags() -> dict[str, str]:
    """The tags of this process, for the environment of a program that inherits no other."""
    return {tag: os.environ[tag] for tag in ProcessTag if tag in os.environ}


def kept_tags() -> dict[str, str]:
    """The tags for a program that outlives the turn which starts it.

    In a pool the next turn is another agent's, so such a program belongs to the child, not to its
    present owner.
    """
    tags = own_tags()
    if _owner_is_turn:
        tags.pop(ProcessTag.OWNER, None)
    return tags


def tag_value() -> str:
    """The value of this process's tags."""
    return f"{_TOKEN}.{os.getpid()}"


def kill_tagged(tag: ProcessTag, pid: int) -> None:
    """SIGKILL every program started by the process of this fleet that had that pid."""
    wanted = f"{tag}={_TOKEN}.{pid}".encode()
    for program in process_identity.all_pids():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{program}/environ").read_bytes().split(b"\0"):
                os.kill(program, signal.SIGKILL)


def take_over(owner: Owner) -> list[int]:
    """Kill the programs of earlier owners, and tag all that is started from now as the owner's.

    Returns the processes not known to have ended in time: then no tag is set and no turn may begin.
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
    tag_owner(owner)
    return []


def tag_owner(owner: Owner) -> None:
    """Tag all that is started from now as the owner's, in place of another owner's before."""
    if sys.platform != "linux":
        return
    tag = f"{ProcessTag.OWNER}={owner}"
    os.environ[ProcessTag.OWNER] = str(owner)
    if tag not in _descriptors:
        _close_descriptors()
        _descriptors[tag] = os.memfd_create(tag)


def drop_owner() -> None:
    """Be nobody's process any more, until the next turn; what was started keeps its tag."""
    global _owner_is_turn
    _owner_is_turn = True
    os.environ.pop(ProcessTag.OWNER, None)
    _close_descriptors()


def _close_descriptors() -> None:
    for descriptor in _descriptors.values():
        os.close(descriptor)
    _descriptors.clear()


def tag_descriptors() -> tuple[int, ...]:
    """Descriptors to leave open in a program, by which it is found whatever its environment.

    Each is a file in memory with the tag as its name. A forked process inherits it; to others its
    environment is that of the program which it was forked from.
    """
    return tuple(_descriptors.values())


def _owned() -> Iterator[tuple[int, Owner, bool]]:
    """Each process that works for an owner; True where it only keeps the tag for a program.

    A tool server's keeper does so. It ends after its program, with all that the program has left.
    """
    for pid in process_identity.all_pids():
        for name, text in _tags_of(f"/proc/{pid}"):
            with contextlib.suppress(ValueError):
                yield pid, Owner.read(text), name != ProcessTag.OWNER


def _tags_of(process: str) -> Iterator[tuple[str, str]]:
    # Another user's cannot be read; a process may end, or close a file, at any moment.
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
