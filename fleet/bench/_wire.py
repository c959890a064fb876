"""The proxies and the provider of a chaos run, in an event loop of their own thread."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Self

from fleet.bench._provider import Provider
from fleet.bench._proxy import Proxy

TIMEOUT_S = 10.0


class ChaosNetwork:
    """A proxy for each host, to the broker's `socket`, and one provider for all."""

    def __init__(self, socket: str, hosts: int) -> None:
        self.proxies = [Proxy(socket) for _ in range(hosts)]
        self.provider = Provider()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        for starting in (*(proxy.start() for proxy in self.proxies), self.provider.start()):
            self.begin(starting).result(TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        for stopping in (*(proxy.stop() for proxy in self.proxies), self.provider.stop()):
            self.begin(stopping).result(TIMEOUT_S)
        self.begin(self._end_tasks()).result(TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def begin(self, work: Coroutine[Any, Any, None]) -> "Future[None]":
        """Run `work` in the event loop; the caller may wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _end_tasks(self) -> None:
        """Cancel the tasks that still wait for a peer."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
