"""The end of a process with the process it works for."""

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress

from fleet.system import process_identity

#: Linux' prctl(2): the signal at the parent's death, and the process that inherits orphans.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.5
#: After SIGKILL only the kernel's own work is left; endless forking is not waited for.
_KILL_TIMEOUT_S = 2.0


def set_parent_death_signal() -> None:
    """Have this process killed when its parent dies, however that happens."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def become_subreaper() -> frozenset[int]:
    """Make this process the parent of every descendant whose own parent dies; Linux only.

    So a daemon cannot hide, in whatever session and with whatever environment. Returns the children
    that exist already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return frozenset(process_identity.children_of(os.getpid()))


def kill_children(besides: frozenset[int]) -> None:
    """SIGKILL every child except `besides`, and the orphans that become children by that."""
    until = time.monotonic() + _KILL_TIMEOUT_S
    while time.monotonic() < until:
        found = set(process_identity.children_of(os.getpid())) - besides
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in found:
            process_identity.await_end(pid, until - time.monotonic())
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(0)
