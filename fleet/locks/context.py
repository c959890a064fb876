"""A context that is entered and left, by `with` or by `async with`.

The work is blocking and short, or a wait that another thread can end. So the asynchronous side runs
it in a thread of its own: asyncio's shared threads are few, and when all of them waited for a lock,
none would be left to give it back.
"""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Self

from fleet.locks.errors import LockLost


class LockContext(ABC):
    """Entered once and left once. Cancelling a task that enters also ends the wait in the store."""

    @abstractmethod
    def enter(self) -> None:
        """Wait until it is ours; after an error nothing is held and no place in line is kept."""

    @abstractmethod
    def leave(self) -> None:
        """Release what is held. Raises LockLost when it was not held any more."""

    @abstractmethod
    def cancel(self) -> None:
        """End `enter` in another thread; release whatever it has acquired or still acquires."""

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.leave()
        except LockLost as lost:
            # What the block raised says more; that its lock was gone must not get lost either.
            if error is None:
                raise
            error.add_note(str(lost))

    async def __aenter__(self) -> Self:
        entering = _in_thread(self.enter)
        try:
            await asyncio.shield(_awaitable(entering))
        except asyncio.CancelledError:
            await _finish(_in_thread(partial(self._abandon, entering)))
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await _finish(_in_thread(partial(self.__exit__, kind, error, trace)))

    def _abandon(self, entering: "Future[None]") -> None:
        self.cancel()
        if entering.exception() is None:
            self.leave()


def _in_thread(call: Callable[[], None]) -> "Future[None]":
    """Run `call` now. No daemon thread: at the end of the program it still gives the lock back."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="fleet-lock").start()
    return future


def _awaitable(work: "Future[None]") -> "asyncio.Future[None]":
    """A task that was cancelled does not read how the work ended, and need not be told so."""
    future = asyncio.wrap_future(work)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


async def _finish(work: "Future[None]") -> None:
    """Await `work` to its end, through one cancellation, which is raised afterwards."""
    awaited = _awaitable(work)
    try:
        await asyncio.shield(awaited)
    except asyncio.CancelledError:
        await awaited
        raise
