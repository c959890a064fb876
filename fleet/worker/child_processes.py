"""Processes that an agent's code begins in a worker's child, as in any other program.

Billiard, from which Celery's pool comes, tells `multiprocessing` that the child is a daemon, which
may start no process, and gives it a key that no spawned process can be given.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import process

#: As Python made it, taken in the worker's parent.
_MAIN = multiprocessing.current_process()


def allow_processes() -> None:
    """Have `multiprocessing` take this process for a main one; its name stays, for the log."""
    _MAIN.name = multiprocessing.current_process().name
    process._current_process = _MAIN  # type: ignore[attr-defined]


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
