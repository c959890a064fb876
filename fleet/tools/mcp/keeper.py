"""Runs one program, and ends it with all that it started when its owner ends, however that ends.

Started as `python keeper.py FD PATIENCE_S PROGRAM ARGUMENT...`, by path and with the standard
library only, so that it is up in 20 ms. FD is the reading end of a pipe whose other end the owner
holds: its end is the owner's wish, or its death by SIGKILL too. The program then gets SIGTERM, and
SIGKILL after PATIENCE_S, and so does all that it left, in whatever session it hides (there on Linux
only; elsewhere its process group must do). Ends with the program's own exit code.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

#: Linux' prctl(2): the signal a process gets when its parent dies, and being the parent of orphans.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
#: A program that forks faster than it can be killed is given up after this.
_SWEEP_S = 5.0
NOT_FOUND_EXIT = 127
#: Begins the names of variables that the program gets without it, and the keeper does not have: a
#: mark by which the program is killed must not have its keeper killed, who finds more.
KEPT_PREFIX = "KEPT_"


def main(lifeline: int, stop_timeout_s: float, command: list[str]) -> int:
    """The program's exit code, once nothing of it is left."""
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
    # Its pipes are the program's: held open here, neither side would see the other's end.
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
        # Python ignores SIGPIPE, and a program would inherit that.
        for number in (signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        env = {name.removeprefix(KEPT_PREFIX): value for name, value in os.environ.items()}
        os.execvpe(command[0], command, env)  # noqa: S606 - no shell: that is what is wanted
    except OSError as error:
        code = NOT_FOUND_EXIT if isinstance(error, FileNotFoundError) else NOT_FOUND_EXIT - 1
    finally:
        os._exit(code)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _wait(pid: int, lifeline: int | None, wake_read: int, seconds: float | None) -> int | None:
    """The exit code of `pid`; None when the lifeline ended first, or `seconds` are over."""
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
    """Kill what was left to us, and what that leaves, until there is nothing."""
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
        # Not pathlib: its import takes longer than all else here.
        with open(f"/proc/self/task/{os.getpid()}/children") as children:
            return [int(pid) for pid in children.read().split()]
    except OSError:
        return []


if __name__ == "__main__":
    os._exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
