"""The end of a fleet's processes with their supervisor, however that ends.

The supervisor holds the only writing end of a pipe and writes nothing. When it dies, by SIGKILL
too, the kernel closes that end and every reader sees the end of the file. This works alike on Linux
and macOS, and leaves time for an orderly stop.
"""

import os
import signal
import subprocess
import threading
import time

from fleet.system.python import PYTHON

#: Names the reading end in a child's environment.
LIFELINE_FD = "FLEET_LIFELINE_FD"
#: From the end of the supervisor to SIGKILL; a turn that is cut off goes back to the ledger.
GRACE_S = 10.0


def watch_lifeline(grace_s: float = GRACE_S) -> None:
    """Have this process end with its supervisor: by SIGTERM, by SIGKILL after `grace_s`.

    Call it early in each process that a supervisor starts. A process that leads a session takes the
    session with it. Does nothing without a supervisor, and nothing when called again: the variable
    is removed from the environment, because our children do not inherit the file behind it.
    """
    fd = os.environ.pop(LIFELINE_FD, None)
    if fd is None:
        return
    watcher = threading.Thread(
        target=_follow, args=(int(fd), grace_s), name="lifeline", daemon=True
    )
    watcher.start()


def _follow(fd: int, grace_s: float) -> None:
    # EOF is the only thing that can be read.
    os.read(fd, 1)
    try:
        # Only a session of our own; another may be the operator's shell.
        if os.getsid(0) == os.getpid():
            _reap_after(os.getpid())
    finally:
        main = threading.main_thread().ident
        if main is not None:
            # Handlers run in the main thread only; the signal interrupts its system call.
            signal.pthread_kill(main, signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


def _reap_after(leader: int) -> None:
    """Have a process that outlives this one kill our children once we have ended."""
    subprocess.Popen(
        [*PYTHON, "-m", "fleet.system.reap", str(leader)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
