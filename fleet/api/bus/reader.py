"""The one thread of an API process that reads the bus, and keeps its place on it whatever happens.

It starts from a concrete id. When the broker comes back it goes on where it was; when the stream is
another one by then, it says so. In the same command it reads which tokens changed, so that nothing
goes out to one that was revoked before. While nobody follows, it rests: the next client has the log
filled anew.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
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

#: How long one read waits for news. Also how soon a wiped stream is noticed that stays empty.
BLOCK_MS = 1000
#: After news it waits so long for more: a busy bus is read in chunks, and an entry that comes to a
#: quiet one is not delayed.
GATHER_S = 0.005
#: Without a client for so long, it rests. Reconnecting clients come back within seconds.
REST_AFTER_S = 30.0
#: After a failed read, doubling. A broker restart takes about a second.
RETRY_S, RETRY_MAX_S = 0.1, 2.0

_log = logging.getLogger(__name__)


class BusSink(Protocol):
    """Whom the reader tells; every method is called in the event loop."""

    def refill(self, window: Window, entries: list[BufferEntry], another_life: bool) -> None:
        """These are the newest entries; all that came before may be forgotten."""

    def publish(self, epoch: str, entries: list[BufferEntry]) -> None:
        """These are new."""

    def resumed(self) -> None:
        """The broker answers, and nothing was lost."""

    def lost(self) -> None:
        """The broker does not answer."""

    def tokens(self, newest: str, table: Mapping[str, Token]) -> None:
        """These are the API tokens; no entry that is told later came before them."""

    def may_rest(self) -> bool:
        """True when nobody follows; then nothing more is told until `Reader.need`."""


class Reader:
    """Reads at most `chunk` entries at once, the newest `history` of them when it starts."""

    def __init__(
        self, store: Callable[[], Store], listener: BusSink, *, chunk: int, history: int
    ) -> None:
        self._store = store
        self._listener = listener
        self._chunk = chunk
        self._history = history
        self._loop: asyncio.AbstractEventLoop | None = None
        self._needed = threading.Event()
        self._stopped = threading.Event()
        self._after: str | None = None  #: None: nothing is known of the stream
        self._epoch = ""
        self._tokens_after: str | None = None  #: None: they must be read
        self._down = False
        self._resting = False

    def start(self) -> None:
        """Call in the listener's event loop."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name="bus-reader", daemon=True).start()

    def need(self) -> None:
        """Somebody follows."""
        self._needed.set()

    def stop(self) -> None:
        """End within BLOCK_MS, without waiting for it; safe to repeat."""
        self._stopped.set()
        self._needed.set()

    def _run(self) -> None:
        wait_s = RETRY_S
        while True:
            self._needed.wait()
            if self._stopped.is_set():
                return
            if self._resting:
                self._resting, self._after, self._tokens_after = False, None, None
            try:
                self._read(self._store())
                wait_s = RETRY_S
            except FleetError as error:
                if not self._down:
                    _log.warning("The bus cannot be read now: %s", error)
                wait_s = self._fail(wait_s)
            except Exception:  # noqa: BLE001 - logged; a reader that ends would silence the bus
                _log.exception("The bus reader failed and goes on where it was.")
                wait_s = self._fail(wait_s)

    def _fail(self, wait_s: float) -> float:
        self._down = True
        self._call(self._listener.lost)
        self._stopped.wait(wait_s)
        return min(2 * wait_s, RETRY_MAX_S)

    def _read(self, store: Store) -> None:
        """Read until it is time to rest or to stop. Raises BrokerUnavailable."""
        after = self._check(store, self._after)
        rest_at = monotonic() + REST_AFTER_S
        while not self._stopped.is_set():
            news = self._next(store, after)
            for epoch, events in groupby(news, key=lambda event: event.epoch):
                self._epoch = epoch
                self._call(
                    partial(self._listener.publish, epoch, [render(event) for event in events])
                )
            after = self._after = news[-1].id if news else self._check(store, after)
            if monotonic() > rest_at:
                self._call(self._rest)
                if self._resting:
                    return
                rest_at = monotonic() + REST_AFTER_S
            if 0 < len(news) < self._chunk:
                self._stopped.wait(GATHER_S)

    def _next(self, store: Store, after: str) -> list[BusEvent]:
        """News of the bus; news of tokens are told before they are answered."""
        if self._tokens_after is None:
            self._tell_tokens(store)
        seen = self._tokens_after or "0-0"
        news, changed = bus.read_beside(
            store, after, keys.ACCESS_NEWS, seen, block_ms=BLOCK_MS, count=self._chunk
        )
        if changed:
            self._tell_tokens(store)
        return news

    def _tell_tokens(self, store: Store) -> None:
        newest = tokens.last_change(store)
        table = tokens.read_all(store)
        self._call(partial(self._listener.tokens, newest, table))
        self._tokens_after = newest

    def _rest(self) -> None:
        """In the event loop, so that no client can come between the look and the rest."""
        if self._listener.may_rest():
            self._needed.clear()
            self._resting = True

    def _check(self, store: Store, after: str | None) -> str:
        """Is this still the stream on which `after` was? Else start from what is there now."""
        window = bus.window(store)
        same = self._epoch in ("", window.epoch)
        if after is not None and same and place_of(after) <= place_of(window.last):
            if self._down:
                self._tell_tokens(store)
                self._call(self._listener.resumed)
                self._down = False
            return after
        entries = [render(event) for event in bus.tail(store, self._history)]
        self._tell_tokens(store)  # read after the entries, told before them
        self._call(partial(self._listener.refill, window, entries, after is not None))
        self._epoch, self._down = window.epoch, False
        newest = [window.last, *(entry.event.id for entry in entries[-1:])]
        self._after = max(newest, key=place_of)
        return self._after

    def _call(self, change: Callable[[], None]) -> None:
        """Let the event loop make a change, and wait until every client that could has acted on it.

        So a burst does not run ahead of clients that keep up: each chunk fits into their queue.
        """
        loop, done = self._loop, threading.Event()
        if loop is None:
            raise RuntimeError("The reader was not started.")

        def act() -> None:
            change()
            loop.call_soon(done.set)  # behind the clients that the change has woken

        try:
            loop.call_soon_threadsafe(act)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            self._stopped.set()
        while not done.wait(0.5) and not self._stopped.is_set():
            pass
