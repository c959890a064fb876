"""No process of ours outlives the one it works for."""

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress

from fleet.system import process_identity

#: Linux' prctl(2): the signal a process gets when its parent dies, and who is told of orphans.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.5
#: After SIGKILL only the kernel's own work is left; what goes on forking is not waited for.
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
    """From now on a program whose parent dies, of those that this process started, is its child.

    So a daemon cannot hide, in whatever session and with whatever environment. Linux only. Answers
    the children that there are already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return frozenset(process_identity.children_of(os.getpid()))


def kill_children(besides: frozenset[int]) -> None:
    """SIGKILL every child of this process but these, and what becomes its child by that."""
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
