"""What signals may do to a turn: the time limits get through, SIGTERM does not.

Celery raises SoftTimeLimitExceeded, an Exception, and LiteLLM and the OpenAI client catch it and
try again (openai/openai-python#2737). So during a turn the signal raises a BaseException instead.
Billiard installs its own handlers after `worker_process_init`, hence one per turn.
"""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fleet.turn.turn import Deadline

#: How soon a limit that waits for an import looks again.
IMPORT_POLL_INTERVAL_S = 0.05
#: How long a coroutine may go on without awaiting anything when the soft limit has passed.
BLOCKED_S = 1.0


class CallTimeout(BaseException):
    """A call took too long. No Exception, so that no library retries or swallows it."""


@contextmanager
def call_limit(seconds: float) -> Iterator[None]:
    """Within this block Overtime is raised, once, when it has lasted `seconds`, above 0.

    Libraries bound each wait for data; one byte a second meets that for ever. Only in the main
    thread, which is where turns run; in another nothing is raised. A limit around this one holds,
    and an import is waited for: the first call of a process makes many.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    armed, began = True, time.monotonic()

    def on_alarm(_number: int, frame: FrameType | None) -> None:
        nonlocal armed
        if armed and _imports(frame):
            signal.setitimer(signal.ITIMER_REAL, IMPORT_POLL_INTERVAL_S)
        elif armed:
            armed = False
            raise CallTimeout

    around_s, _ = signal.getitimer(signal.ITIMER_REAL)
    if 0 < around_s <= seconds:
        yield
        return
    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        try:
            yield
        finally:
            armed = False
    finally:
        # In a block of its own: the alarm may come at the end of the other.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if around_s:
            left_s = around_s - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(left_s, 0.001))


def _imports(frame: FrameType | None) -> bool:
    """True within an import: one cut short leaves a half-made module to the whole process."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def soft_limit(sooner_s: float | None = None) -> Iterator[None]:
    """Within this block the soft limit raises Deadline, once; after it, nothing.

    The worker's limit is its agent's; `sooner_s` is one of this turn alone, in seconds.
    """
    armed = True

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Deadline

    signal.signal(signal.SIGUSR1, on_signal)
    if sooner_s is not None:
        # By way of the other, which is blocked where a turn clears up.
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGUSR1))
        signal.setitimer(signal.ITIMER_REAL, sooner_s)
    try:
        yield
    finally:
        if sooner_s is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        # Disarmed, but not replaced by billiard's handler, which raises too: the limit may pass
        # while the outcome is written, and must not undo it.
        armed = False


@contextmanager
def noted_limit() -> Iterator[Callable[[], bool]]:
    """Within this block the soft limit raises nothing; ask the function whether it has passed.

    For code that must not be left between any two instructions. It asks often, and ends by itself.
    """
    passed = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal passed
        passed = True

    # To block the signal would not do: a thread that does not block it takes it, and Python runs
    # the handler in this one.
    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        yield lambda: passed
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def loop_limit(
    loop: asyncio.AbstractEventLoop, running: "Callable[[], asyncio.Task[Any] | None]"
) -> Iterator[Callable[[], bool]]:
    """Within this block the soft limit cancels a task; ask the function whether it has passed.

    An exception raised within the loop itself would be lost, or leave it half done. Only a
    coroutine that blocks the loop for BLOCKED_S more gets Deadline raised where it is.
    """
    passed: list[asyncio.Handle] = []

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if (task := running()) is not None:
            task.cancel()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if passed:
            return
        passed.append(loop.call_soon_threadsafe(cancel))
        signal.setitimer(signal.ITIMER_REAL, BLOCKED_S)

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        if not passed:
            signal.raise_signal(signal.SIGUSR1)
        elif (blocking := asyncio.current_task(loop)) is not None:
            if blocking is running():
                passed[0].cancel()  # or it would be told twice, the second time while it cleans up
            raise Deadline

    alarm_before = signal.signal(signal.SIGALRM, on_alarm)
    limit_before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        yield lambda: bool(passed)
    finally:
        signal.signal(signal.SIGUSR1, limit_before)
        if passed:
            # The loop goes on to the next turn, and must not find this one's there.
            passed[0].cancel()
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm_before)


@contextmanager
def sigterm_ignored() -> Iterator[None]:
    """Within this block SIGTERM does nothing.

    systemd sends it to every process of a service at once, and Celery to the child of a worker that
    stops cold; billiard makes it a SystemExit, which looks like a mistake of the agent's own code.
    But a stopping worker waits for its turn, or kills it and hands it back.
    """
    # No SIG_IGN: what the turn's tools start would inherit that.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
