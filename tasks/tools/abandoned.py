"""Calls of tools in threads of this process; after a turn, the calls that it has abandoned.

Python cannot end a thread, so an abandoned call ends with the process: see `tasks.dispatch`.
"""

from itertools import count

_tokens = count()
#: Token -> the call writes.
_running: dict[int, bool] = {}


def begin(*, writes: bool) -> int:
    """Record the begin of a call; the token to end it with."""
    token = next(_tokens)
    _running[token] = writes
    return token


def end(token: int) -> None:
    """Record the end of a call."""
    _running.pop(token, None)


def running() -> int:
    """Number of calls that run on."""
    return len(_running)


def writing() -> bool:
    """True while a call that writes runs on."""
    return any(list(_running.values()))
