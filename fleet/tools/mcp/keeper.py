"""A keeper: runs one program, and stops it with all its descendants when its owner ends.

Started as `python keeper.py FD STOP_TIMEOUT_S PROGRAM ARGUMENT...`, by path and with the standard
library only, so it starts in 20 ms. FD is the read end of a pipe, whose write end the owner holds.
The pipe closes when the owner closes it or dies, even by SIGKILL. The program then gets SIGTERM,
and SIGKILL after STOP_TIMEOUT_S, and so do its descendants: in any session on Linux, elsewhere in
its process group. The keeper exits with the program's exit code.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

#: Linux' prctl(2): the signal at the parent's death, and adopting orphaned descendants.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
#: How long to kill a program that forks faster than it is killed.
_SWEEP_S = 5.0
NOT_FOUND_EXIT = 127
#: A prefix for variables of the program that its keeper must not have itself: whoever kills the
#: program by its process tag must spare the keeper, which finds more descendants.
KEPT_PREFIX = "KEPT_"


def main(lifeline: int, stop_timeout_s: float, command: list[str]) -> int:
    """Run the program; return its exit code when none of its processes is left."""
    os.set_inheritable(lifeline, False)
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    pid = os.fork()
    if pid == 0:
        _exec(command)
    # Close our copies of the program's pipes; otherwise neither side would see the other's end.
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    code = _wait(pid, lifeline, wake_read, None)
    if code is None:
        _signal_group(pid, signal.SIGTERM)
        code = _wait(pid, None, wake_read, stop_timeout_s)
    _signal_group(pid, signal.SIGKILL)
    if code is None:
        code = _wait(pid, None, wake_read, _SWEEP_S)
    _sweep()
    return 1 if code is None else code


def _exec(command: list[str]) -> None:
    code = NOT_FOUND_EXIT
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Python ignores SIGPIPE, and the program would inherit it.
        for number in (signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        env = {name.removeprefix(KEPT_PREFIX): value for name, value in os.environ.items()}
        os.execvpe(command[0], command, env)  # noqa: S606 - no shell, on purpose
    except OSError as error:
        code = NOT_FOUND_EXIT if isinstance(error, FileNotFoundError) else NOT_FOUND_EXIT - 1
    finally:
        os._exit(code)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _wait(pid: int, lifeline: int | None, wake_read: int, seconds: float | None) -> int | None:
    """The exit code of `pid`; None when the lifeline closes first, or after `seconds`."""
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code
        left = None if until is None else max(0.0, until - time.monotonic())
        watched = [wake_read] if lifeline is None else [wake_read, lifeline]
        ready, _, _ = select.select(watched, [], [], left)
        if lifeline in ready or left == 0.0:
            return None
        with contextlib.suppress(BlockingIOError):
            os.read(wake_read, 4096)


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _sweep() -> None:
    """Kill all adopted children, and their adopted children, until none is left."""
    until = time.monotonic() + _SWEEP_S
    while time.monotonic() < until:
        for child in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def _children() -> list[int]:
    try:
        # No pathlib: its import takes longer than everything else here.
        with open(f"/proc/self/task/{os.getpid()}/children") as children:
            return [int(pid) for pid in children.read().split()]
    except OSError:
        return []


if __name__ == "__main__":
    os._exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
