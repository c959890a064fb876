"""How processes of a fleet end with the one that started them, however that one ends.

The supervisor holds the only writing end of a pipe and writes nothing. When it dies, by SIGKILL
too, the kernel closes that end and every reader sees the end of the file. This works alike on Linux
and macOS, and leaves time for an orderly stop.
"""

import os
import signal
import subprocess
import sys
import threading
import time

#: Names the reading end in a child's environment.
LIFELINE_FD = "FLEET_LIFELINE_FD"
#: From the end of the supervisor to SIGKILL; the turn that is cut off then goes back to the ledger.
GRACE_S = 10.0


def watch_lifeline(grace_s: float = GRACE_S) -> None:
    """From now on this process ends with its supervisor: by SIGTERM, by SIGKILL after `grace_s`.

    Call it early in each process that a supervisor starts; when it leads a session, that ends with
    it. Does nothing without a supervisor, and nothing when called again: the variable is taken out
    of the environment, because our own children do not inherit the file behind it.
    """
    told = os.environ.pop(LIFELINE_FD, None)
    if told is None:
        return
    watcher = threading.Thread(
        target=_follow, args=(int(told), grace_s), name="lifeline", daemon=True
    )
    watcher.start()


def _follow(fd: int, grace_s: float) -> None:
    # EOF is the only thing that can be read.
    os.read(fd, 1)
    try:
        # Only what was started as our session; another one may be the operator's shell.
        if os.getsid(0) == os.getpid():
            _reap_after(os.getpid())
    finally:
        main = threading.main_thread().ident
        if main is not None:
            # To the main thread, whose system call it interrupts: only there handlers run.
            signal.pthread_kill(main, signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


def _reap_after(leader: int) -> None:
    """Have another process kill our children when we have ended: it takes one that outlives us."""
    subprocess.Popen(
        [sys.executable, "-m", "fleet.system.reap", str(leader)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
