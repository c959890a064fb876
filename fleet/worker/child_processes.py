"""Processes that an agent's code begins in a worker's child, as in any other program.

Billiard, from which Celery's pool comes, tells `multiprocessing` that the child is a daemon, which
may start no process, and gives it a key that no spawned process can be given. A turn ignores
SIGTERM, and a process that its code forks would, too: `terminate` would not end it.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import process

#: As Python made it, taken in the worker's parent.
_MAIN = multiprocessing.current_process()


def allow_processes() -> None:
    """Have `multiprocessing` take this process for a main one; its name stays, for the log."""
    _MAIN.name = multiprocessing.current_process().name
    process._current_process = _MAIN  # type: ignore[attr-defined]
    os.register_at_fork(
        before=_hold_sigterm, after_in_parent=_release_sigterm, after_in_child=_end_by_sigterm
    )


#: The signals that a thread had blocked before it forked.
_BLOCKED = threading.local()


def _hold_sigterm() -> None:
    # One that comes before the new process has its own way to end would be lost.
    _BLOCKED.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _BLOCKED.mask)


def _end_by_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release_sigterm()


@contextmanager
def end_forks() -> Iterator[None]:
    """End a process that the code within forks, where it leaves this block.

    Otherwise it would end the turn beside its parent, and take further ones.
    """
    owner = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != owner:
            os._exit(_status_of(error))
        raise
    if os.getpid() != owner:
        os._exit(0)


def _status_of(error: BaseException) -> int:
    """The exit status of a program that `error` ends, which is told as there."""
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
