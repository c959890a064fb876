"""Signals during a turn: the time limits get through, SIGTERM does not.

Celery raises SoftTimeLimitExceeded, an Exception. LiteLLM and the OpenAI client catch that and try
again (openai/openai-python#2737), so during a turn the signal raises a BaseException instead.
Billiard installs its own handlers after `worker_process_init`, hence ours are set in each turn.

No limit ends a thread. A tool's call that passes its limit in a thread is abandoned, and ends with
the process (see `tasks.dispatch`). Those calls are counted here.
"""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FrameType
from typing import Any

from fleet.turn.turn import Deadline

#: Between checks of a limit that waits for an import.
IMPORT_POLL_INTERVAL_S = 0.05
#: How long a coroutine may run without awaiting anything when the soft limit has passed.
BLOCKED_S = 1.0


class CallTimeout(BaseException):
    """A call took too long. Not an Exception, so that no library retries or swallows it."""


@contextmanager
def call_limit(seconds: float) -> Iterator[None]:
    """Raise CallTimeout within this block, once, when it has lasted `seconds`, above 0.

    Libraries bound each wait for data; one byte a second satisfies that for ever. Only in the main
    thread, where turns run; in another thread nothing is raised. A shorter limit around this one
    holds. An import is finished first: the first call of a process makes many.
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
        # In a block of its own: the alarm may come at the end of the inner block.
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
    """Raise Deadline at the soft limit within this block, once; after the block, nothing.

    The worker keeps its agent's limit; `sooner_s` is a limit of this turn alone, in seconds.
    """
    armed = True

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Deadline

    signal.signal(signal.SIGUSR1, on_signal)
    if sooner_s is not None:
        # Through SIGUSR1, which is blocked where a turn clears up.
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGUSR1))
        signal.setitimer(signal.ITIMER_REAL, sooner_s)
    try:
        yield
    finally:
        if sooner_s is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        # Disarmed, but not replaced by billiard's handler, which raises too: the limit may pass
        # while the outcome is recorded, and must not undo it.
        armed = False


@contextmanager
def noted_limit() -> Iterator[Callable[[], bool]]:
    """Raise nothing at the soft limit within this block; the function is true once it has passed.

    For code that must not be interrupted between two instructions. It checks often, and ends by
    itself.
    """
    passed = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal passed
        passed = True

    # Blocking the signal would not do: another thread would receive it, and Python runs the handler
    # in this one.
    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        yield lambda: passed
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def loop_limit(
    loop: asyncio.AbstractEventLoop, running: "Callable[[], asyncio.Task[Any] | None]"
) -> Iterator[Callable[[], bool]]:
    """Cancel a task at the soft limit within this block; the function is true once it has passed.

    An exception raised within the loop itself would be lost, or leave the loop in mid-step. Only a
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
                passed[0].cancel()  # or it would be cancelled again while it cleans up
            raise Deadline

    alarm_before = signal.signal(signal.SIGALRM, on_alarm)
    limit_before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        yield lambda: bool(passed)
    finally:
        signal.signal(signal.SIGUSR1, limit_before)
        if passed:
            # The loop goes on to the next turn, and must not find this turn's callback.
            passed[0].cancel()
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm_before)


@contextmanager
def sigterm_ignored() -> Iterator[None]:
    """Ignore SIGTERM within this block.

    systemd sends SIGTERM to every process of a service at once, and Celery to the child of a worker
    that stops cold. Billiard turns it into a SystemExit, which looks like a fault of the agent's
    code. But a stopping worker waits for its turn, or kills and releases it.
    """
    # Not SIG_IGN, which the programs that the turn's tools start would inherit.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class ThreadCalls:
    """Calls of tools in threads of this process; after a turn, those that it has abandoned."""

    def __init__(self) -> None:
        self._tokens = count()
        #: Token -> the call writes.
        self._running: dict[int, bool] = {}

    def begin(self, *, writes: bool) -> int:
        """Record the begin of a call; the token to end it with."""
        token = next(self._tokens)
        self._running[token] = writes
        return token

    def end(self, token: int) -> None:
        """Record the end of a call."""
        self._running.pop(token, None)

    @property
    def running(self) -> int:
        """Number of calls that run on."""
        return len(self._running)

    @property
    def writing(self) -> bool:
        """True while a call that writes runs on."""
        return any(list(self._running.values()))


THREAD_CALLS = ThreadCalls()
