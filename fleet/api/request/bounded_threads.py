"""A few threads with a bounded queue for blocking calls: a slow store cannot pile up work."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from fleet.errors import FleetError

Answer = TypeVar("Answer")


class ThreadsBusy(FleetError):
    """Too many calls are waiting (HTTP 503)."""


class BoundedThreads:
    """A few daemon threads: a call that hangs on a dead store does not delay the process's exit."""

    def __init__(self, name: str, threads: int, backlog: int) -> None:
        """`backlog` is the most calls that may wait; any further call is refused."""
        self._work: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue(backlog)
        for number in range(threads):
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True).start()

    async def run(self, call: Callable[[], Answer]) -> Answer:
        """Run `call` in a thread. Raises its error, or ThreadsBusy when the queue is full."""
        future: Future[Answer] = Future()
        try:
            self._work.put_nowait((future, call))
        except queue.Full:
            raise ThreadsBusy("Too many requests wait for the store already: try again.") from None
        return await asyncio.wrap_future(future)

    def _serve(self) -> None:
        while True:
            future, call = self._work.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
                future.set_exception(error)
