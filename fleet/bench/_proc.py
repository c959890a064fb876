"""Processes by /proc: their descent and their resource use."""

import os
import signal
from contextlib import suppress
from pathlib import Path

from fleet.system.process_identity import all_pids


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; empty for an ended process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def parent(pid: int) -> int:
    """The parent of a process. Raises ProcessLookupError for an ended process."""
    if fields := stat(pid):
        return int(fields[1])
    raise ProcessLookupError(pid)


def family(roots: set[int]) -> set[int]:
    """The processes and all their descendants."""
    parents = {}
    for pid in all_pids():
        if fields := stat(pid):
            parents[pid] = int(fields[1])
    found = set(roots)
    while more := {pid for pid, of in parents.items() if of in found} - found:
        found |= more
    return found


def cpu_s(pids: set[int]) -> float:
    """User and system time so far, with that of ended children; 0 without /proc."""
    ticks = sum(sum(map(int, fields[11:15])) for pid in pids if (fields := stat(pid)))
    return ticks / os.sysconf("SC_CLK_TCK")


def kill_family(root: int) -> None:
    """SIGKILL a process and all its descendants, like a power loss of their machine.

    They are stopped first, so that none reacts to another's death.
    """
    pids = family({root})
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in sorted(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
