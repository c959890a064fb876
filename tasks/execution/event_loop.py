"""The event loop that async agents run on: one for a process, which it keeps between its turns.

A client that a module opens once, such as an `httpx.AsyncClient`, stays usable. The tasks of a turn
end with the turn: those left are cancelled and awaited. A thread cannot be cancelled;
`tasks.limits.THREAD_CALLS` counts a call of `asyncio.to_thread` that runs on.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from fleet.errors import BrokerUnavailable, Fenced
from fleet.turn.turn import Deadline, TurnFailed, TurnStopped
from tasks.limits import THREAD_CALLS, loop_limit

logger = logging.getLogger(__name__)

#: Ways to end a turn, which a task group wraps.
_ENDINGS = (TurnStopped, TurnFailed, Fenced, BrokerUnavailable)


class TurnLoop:
    """Runs one coroutine at a time, under the soft limit; only in the main thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_Threads())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of `work`, once all tasks that it has begun have ended too.

        At the soft limit `work` is cancelled, and may clean up until the hard limit. Raises
        Deadline when that ends it, otherwise the error of `work`.
        """
        task: asyncio.Task[Any] | None = None
        with loop_limit(self._loop, lambda: task) as passed:
            try:
                task = self._loop.create_task(work, context=copy_context())
                return self._loop.run_until_complete(task)
            except asyncio.CancelledError:
                if passed():
                    raise Deadline from None
                raise
            except BaseExceptionGroup as group:
                raise _ending_in(group) or group from None
            finally:
                self._cancel_leftovers()

    def _cancel_leftovers(self) -> None:
        # Cancelling one task may begin another.
        while left := asyncio.all_tasks(self._loop):
            for task in left:
                task.cancel()
            results = self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            for result in results:
                if isinstance(result, Exception):
                    logger.warning(
                        "a task that a turn left behind raised %s", type(result).__name__
                    )


class _Threads(ThreadPoolExecutor):
    """The loop's threads, whose calls are counted: a call may outlive its turn."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit as the parent class, and count the call."""
        token = THREAD_CALLS.begin(writes=True)
        call = super().submit(fn, *args, **kwargs)
        call.add_done_callback(lambda _: THREAD_CALLS.end(token))
        return call


def _ending_in(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    for error in group.exceptions:
        found = _ending_in(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, _ENDINGS):
            return found
    return None
