"""Calls of tools that run in threads of this process; when a turn has ended, those it left behind.

Python cannot end a thread, so what lingers ends with the process: see `tasks.dispatch`.
"""

from itertools import count

_tokens = count()
#: Whether it writes.
_running: dict[int, bool] = {}


def begin(*, writes: bool) -> int:
    """A call begins; the token with which it ends."""
    token = next(_tokens)
    _running[token] = writes
    return token


def end(token: int) -> None:
    """It has ended."""
    _running.pop(token, None)


def running() -> int:
    """How many go on."""
    return len(_running)


def writing() -> bool:
    """Whether one of them writes."""
    return any(list(_running.values()))
