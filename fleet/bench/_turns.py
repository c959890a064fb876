"""The measured turns, equal for the fleet and for bare Celery: one line into one log.

The text of an event is `<number> <padding>`. A line is `<number> <monotonic ns> <pid>`, written by
one `write` to a file opened for appending, so lines of several processes never mix. The machine has
one monotonic clock, so these times are comparable with the sender's.
"""

import os
import time
from functools import cache
from pathlib import Path
from typing import Any

#: The variable with the path of the log.
LOG = "BENCH_LOG"
#: A held turn that nobody kills ends by itself.
HOLD_S_MAX = 60.0


def noop(turn: Any) -> None:
    """Record the start of the turn, and end it. `turn` is the fleet's."""
    record(turn.text)


def hold(turn: Any) -> None:
    """Record the start of the turn; the first time, stay in it until killed."""
    hold_text(turn.text)


def record(text: str) -> None:
    """Write the line of an event."""
    started = time.monotonic_ns()
    number = text.partition(" ")[0]
    os.write(_log(), b"%s %d %d\n" % (number.encode(), started, os.getpid()))


def hold_text(text: str) -> None:
    """Hold a turn by its text, until it is killed or released. Negative numbers are not held."""
    record(text)
    mark = _mark(text)
    if text.startswith("-") or mark.exists():
        return
    mark.touch()
    until = time.monotonic() + HOLD_S_MAX
    while mark.stat().st_size == 0 and time.monotonic() < until:
        time.sleep(0.005)


def stay(text: str) -> None:
    """Record the start of the turn, and stay in it for the seconds after the number."""
    record(text)
    time.sleep(float(text.split(" ")[1]))


def release(text: str) -> None:
    """Release the held turn of an event."""
    _mark(text).write_text("go")


def _mark(text: str) -> Path:
    return Path(f"{os.environ[LOG]}.{text.partition(' ')[0]}")


@cache
def _log() -> int:
    return os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
