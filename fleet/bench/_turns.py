"""What the measured turns do, alike for the fleet and for bare Celery: one line into one log.

The text of an event is `<number> <padding>`. A line is `<number> <monotonic ns> <pid>`, written by
one `write` to a file opened for appending, so lines of several processes never mix. The monotonic
clock is one for the whole machine, so the sender's times and these can be subtracted.
"""

import os
import time
from functools import cache
from pathlib import Path
from typing import Any

#: Where the lines go.
LOG = "BENCH_LOG"
#: A held turn that nobody kills ends by itself.
HOLD_S_MAX = 60.0


def noop(turn: Any) -> None:
    """Note that the turn has started, and end it. `turn` is the fleet's."""
    record(turn.text)


def hold(turn: Any) -> None:
    """Note that the turn has started; the first time, stay in it until killed."""
    hold_text(turn.text)


def record(text: str) -> None:
    """Write the line of an event."""
    started = time.monotonic_ns()
    number = text.partition(" ")[0]
    os.write(_log(), b"%s %d %d\n" % (number.encode(), started, os.getpid()))


def hold_text(text: str) -> None:
    """As `hold`, until `release` too. A number below zero is never held."""
    record(text)
    mark = _mark(text)
    if text.startswith("-") or mark.exists():
        return
    mark.touch()
    until = time.monotonic() + HOLD_S_MAX
    while mark.stat().st_size == 0 and time.monotonic() < until:
        time.sleep(0.005)


def stay(text: str) -> None:
    """Note that the turn has started, and stay in it for the seconds that come after the number."""
    record(text)
    time.sleep(float(text.split(" ")[1]))


def release(text: str) -> None:
    """End the held turn of an event."""
    _mark(text).write_text("go")


def _mark(text: str) -> Path:
    return Path(f"{os.environ[LOG]}.{text.partition(' ')[0]}")


@cache
def _log() -> int:
    return os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
