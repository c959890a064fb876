"""Names of processes, by which the death of one on this machine is certain.

A lease may be taken from a dead holder at once, and must not be taken from a living one. A broken
connection of the holder proves nothing: networks break connections of living processes. Only the
kernel knows. So a holder's name has its boot, namespace, pid and start: from the same place the
answer is certain, from elsewhere there is none.
"""

import os
import select
import socket
from contextlib import suppress
from pathlib import Path

from fleet.system.clock import boot_id

#: Of /proc/PID/stat, counted from behind the command's name: the state, the parent, the start in
#: ticks.
_STATE, _PARENT, _START = 0, 1, 19
_GONE = ("Z", "X")


def identity(pid: int | None = None) -> str:
    """The name of a process, by default this one; unique over time and machines."""
    pid = os.getpid() if pid is None else pid
    stat = _stat(pid)
    return f"{_place()}/{pid}/{stat[_START] if stat else ''}"


def is_gone(name: str) -> bool:
    """True when the process of that name has certainly ended; False when it lives or is unknown.

    By then the kernel has killed the processes that were to die with it.
    """
    place, _, rest = name.partition("/")
    pid, _, start = rest.partition("/")
    if place != _place() or not pid.isdigit():
        return False
    stat = _stat(int(pid))
    if stat and start:
        return stat[_START] != start or stat[_STATE] in _GONE
    try:
        os.kill(int(pid), 0)  # a question only; /proc may hide the processes of other users
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def has_ended(pid: int) -> bool:
    """True when no process has that pid, or only one that waits to be reaped."""
    if stat := _stat(pid):
        return stat[_STATE] in _GONE
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def await_end(pid: int, timeout_s: float) -> bool:
    """Wait for the end of a killed process; False when it is not known to have ended."""
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s) * 1000))
    finally:
        os.close(fd)


def children_of(pid: int) -> list[int]:
    """The children of a process, zombies included; none without /proc."""
    found = []
    for other in all_pids():
        with suppress(PermissionError):  # /proc may hide those of other users
            stat = _stat(other)
            if stat and stat[_PARENT] == str(pid):
                found.append(other)
    return found


def all_pids() -> list[int]:
    """Every process of the machine that this one sees; none without /proc."""
    with suppress(FileNotFoundError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []


def _place() -> str:
    """The boot and namespace within which pids are unique."""
    if boot := boot_id():
        with suppress(OSError):
            return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    return socket.gethostname()


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the command's name; None where there are none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
