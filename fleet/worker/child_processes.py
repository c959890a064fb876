"""Python's `multiprocessing` in a worker's child, as in any other program.

Billiard, from which Celery's pool comes, tells it that the child is a daemon, which may start no
process, and gives it a key that no spawned process can be given.
"""

import multiprocessing
from multiprocessing import process

#: As Python made it, taken in the worker's parent.
_MAIN = multiprocessing.current_process()


def allow_processes() -> None:
    """Have `multiprocessing` take this process for a main one; its name stays, for the log."""
    _MAIN.name = multiprocessing.current_process().name
    process._current_process = _MAIN  # type: ignore[attr-defined]
