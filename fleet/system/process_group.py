"""The end of a whole session or group: every process that its leader left."""

import contextlib
import os
import signal

from fleet.system.process_identity import all_pids, await_end
from fleet.system.process_tags import ProcessTag, kill_tagged

#: After SIGKILL only the kernel's own work is left.
KILL_TIMEOUT_S = 2.0


def kill_child(child: int) -> None:
    """SIGKILL a child that runs turns, with all that its tools started; return when it is dead."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    await_end(child, KILL_TIMEOUT_S)
    kill_tagged(ProcessTag.CHILD, child)


def kill_session(leader: int) -> None:
    """SIGKILL every process of the session that `leader` started, the leader included.

    Processes that its tools started in sessions of their own end too, where they carry its tag.
    """
    for pid in _members(leader):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    kill_tagged(ProcessTag.WORKER, leader)


def _members(leader: int) -> list[int]:
    found = []
    for pid in all_pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                found.append(pid)
    return found
