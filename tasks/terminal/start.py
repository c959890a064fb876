"""`python -I -S start.py FD PARENT PROGRAM ARGUMENT...`: becomes the program of a terminal.

Run with the terminal as its standard input, in a session of its own. All work between fork and exec
is done here, in a process of one thread. Needs the standard library only. The error number of a
program that cannot be run goes to the descriptor FD; FD closes empty when the program runs.
"""

import ctypes
import fcntl
import os
import signal
import sys
import termios

_PR_SET_PDEATHSIG = 1


def main(errors: int, parent: int, command: list[str]) -> None:
    """Never returns."""
    os.set_inheritable(errors, False)
    if sys.platform == "linux":
        # Ends with the process that types to it, even if it ignores SIGHUP.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # A worker ignores Ctrl-C, and exec keeps ignored signals ignored.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(errors, str(error.errno).encode())
        os._exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
