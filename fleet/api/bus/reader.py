"""The one thread of an API process that reads the bus.

It reads from a concrete id. After an outage it resumes there, unless the stream has been replaced;
then it reports a changed epoch. The same command reads changes of the tokens, so no entry reaches a
client whose token was revoked before it. While nobody follows, the reader is idle; the next client
makes it refill the buffer.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from itertools import groupby
from time import monotonic
from typing import Protocol

from fleet.api.bus.buffer import BufferEntry, render
from fleet.api.bus.cursor import place_of
from fleet.auth import tokens
from fleet.auth.tokens import Token
from fleet.errors import FleetError
from fleet.ledger import bus
from fleet.ledger.bus import BusEvent, Window
from fleet.store import Store, keys

#: How long one read blocks. Also how soon a wiped and empty stream is noticed.
BLOCK_MS = 1000
#: The pause after a read, so a busy bus is read in chunks. The first entry on a quiet bus is not
#: delayed.
GATHER_S = 0.005
#: The reader is idle after this long without a client. Reconnecting clients take seconds.
IDLE_AFTER_S = 30.0
#: After a failed read, doubling. A broker restart takes about a second.
RETRY_S, RETRY_MAX_S = 0.1, 2.0

_log = logging.getLogger(__name__)


class BusSink(Protocol):
    """The receiver of the reader's results; each method runs in the event loop."""

    def refill(self, window: Window, entries: list[BufferEntry], epoch_changed: bool) -> None:
        """Replace all entries by these, the newest of the stream."""

    async def publish(self, epoch: str, entries: list[BufferEntry]) -> None:
        """Append new entries, and return once they were offered to every client."""

    def resumed(self) -> None:
        """Resume after an outage, without a gap."""

    def lost(self) -> None:
        """Record that the broker does not answer."""

    def update_tokens(self, newest: str, table: Mapping[str, Token]) -> None:
        """Replace the API tokens, before any later entry."""

    def may_idle(self) -> bool:
        """True when nobody follows; the reader is then idle until `Reader.wake`."""


class Reader:
    """Reader of at most `chunk` entries at once; it starts with the newest `history` entries."""

    def __init__(
        self, store: Callable[[], Store], sink: BusSink, *, chunk: int, history: int
    ) -> None:
        self._store = store
        self._sink = sink
        self._chunk = chunk
        self._history = history
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._after: str | None = None  #: the last id read; None before the first read
        self._epoch = ""
        self._tokens_after: str | None = None  #: the last change read; None before the first read
        self._down = False
        self._idle = False

    def start(self) -> None:
        """Start the thread. Call it in the sink's event loop."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name="bus-reader", daemon=True).start()

    def wake(self) -> None:
        """Read again, for a new client."""
        self._woken.set()

    def stop(self) -> None:
        """Stop within BLOCK_MS, without waiting for the thread; safe to repeat."""
        self._stopped.set()
        self._woken.set()

    def _run(self) -> None:
        wait_s = RETRY_S
        while True:
            self._woken.wait()
            if self._stopped.is_set():
                return
            if self._idle:
                self._idle, self._after, self._tokens_after = False, None, None
            try:
                self._read(self._store())
                wait_s = RETRY_S
            except FleetError as error:
                if not self._down:
                    _log.warning("The bus cannot be read now: %s", error)
                wait_s = self._fail(wait_s)
            except Exception:  # noqa: BLE001 - logged; a reader that ends would silence the bus
                _log.exception("The bus reader failed and resumes where it was.")
                wait_s = self._fail(wait_s)

    def _fail(self, wait_s: float) -> float:
        self._down = True
        self._call(self._sink.lost)
        self._stopped.wait(wait_s)
        return min(2 * wait_s, RETRY_MAX_S)

    def _read(self, store: Store) -> None:
        """Read until the reader becomes idle or stops. Raises BrokerUnavailable."""
        after = self._check(store, self._after)
        idle_at = monotonic() + IDLE_AFTER_S
        while not self._stopped.is_set():
            news = self._next(store, after)
            for epoch, events in groupby(news, key=lambda event: event.epoch):
                self._epoch = epoch
                self._call(partial(self._sink.publish, epoch, [render(event) for event in events]))
            after = self._after = news[-1].id if news else self._check(store, after)
            if monotonic() > idle_at:
                self._call(self._go_idle)
                if self._idle:
                    return
                idle_at = monotonic() + IDLE_AFTER_S
            if 0 < len(news) < self._chunk:
                self._stopped.wait(GATHER_S)

    def _next(self, store: Store, after: str) -> list[BusEvent]:
        """New entries; changed tokens are published first."""
        if self._tokens_after is None:
            self._publish_tokens(store)
        seen = self._tokens_after or "0-0"
        news, changed = bus.read_beside(
            store, after, keys.ACCESS_NEWS, seen, block_ms=BLOCK_MS, count=self._chunk
        )
        if changed:
            self._publish_tokens(store)
        return news

    def _publish_tokens(self, store: Store) -> None:
        newest = tokens.last_change(store)
        table = tokens.read_all(store)
        self._call(partial(self._sink.update_tokens, newest, table))
        self._tokens_after = newest

    def _go_idle(self) -> None:
        """Become idle if nobody follows; in the event loop, so no client can come in between."""
        if self._sink.may_idle():
            self._woken.clear()
            self._idle = True

    def _check(self, store: Store, after: str | None) -> str:
        """Return `after` if the stream is still the same; otherwise refill and return its end."""
        window = bus.window(store)
        same = self._epoch in ("", window.epoch)
        if after is not None and same and place_of(after) <= place_of(window.last):
            if self._down:
                self._publish_tokens(store)
                self._call(self._sink.resumed)
                self._down = False
            return after
        entries = [render(event) for event in bus.tail(store, self._history)]
        self._publish_tokens(store)  # read after the entries, published before them
        self._call(partial(self._sink.refill, window, entries, after is not None))
        self._epoch, self._down = window.epoch, False
        newest = [window.last, *(entry.event.id for entry in entries[-1:])]
        self._after = max(newest, key=place_of)
        return self._after

    def _call(self, change: Callable[[], Awaitable[None] | None]) -> None:
        """Run `change` in the event loop, and wait until all clients it has woken have run.

        So a burst does not overtake clients that keep up: each chunk fits into their queue.
        """
        loop, done = self._loop, threading.Event()
        if loop is None:
            raise RuntimeError("The reader was not started.")

        async def act() -> None:
            try:
                if (rest := change()) is not None:
                    await rest
            except Exception:  # noqa: BLE001 - logged; the reader waits for the end
                _log.exception("A result of the bus reader was not taken by every client.")
            finally:
                loop.call_soon(done.set)  # after the clients that the change has woken

        acting = act()
        try:
            # The loop holds its tasks weakly.
            _task = asyncio.run_coroutine_threadsafe(acting, loop)
        except RuntimeError:  # the loop is closed: no client is left
            acting.close()
            self._stopped.set()
        while not done.wait(0.5) and not self._stopped.is_set():
            pass
