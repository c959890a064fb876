"""The locks in front of a call: first the session's, then the turn's for reading or writing.

    with guard.operation("write_file"):
        ...

While the store is away the holders are unknown. `on_store_down` decides: "closed" refuses the
call, "open" lets it through without locks and says so loudly. There is no local lock in between:
it would look like protection and be none.
"""

import logging
import threading
import time
from typing import Literal

from fleet.errors import BrokerUnavailable, ConfigError
from fleet.locks.classify import OperationClassifier
from fleet.locks.context import LockContext
from fleet.locks.errors import LockBusy, LockLost, StoreUnavailable
from fleet.locks.handle import LockHandle
from fleet.locks.session import SessionLock
from fleet.locks.turn import TurnRWLock

logger = logging.getLogger(__name__)

#: A longer wait is one that a person would ask about.
WAIT_LOGGED_S = 0.1

#: How often it is said that calls go through without locks.
OPEN_LOGGED_EVERY_S = 60.0

OnStoreDown = Literal["closed", "open"]


class ConcurrencyGuard:
    """Safe to share between threads. Raises ConfigError for another `on_store_down`."""

    def __init__(
        self,
        session_lock: SessionLock,
        rw_lock: TurnRWLock,
        classifier: OperationClassifier,
        on_store_down: OnStoreDown = "closed",
    ) -> None:
        if on_store_down not in ("closed", "open"):
            raise ConfigError(f"locks.on_store_down: {on_store_down!r} is not closed or open.")
        self._session_lock = session_lock
        self._rw_lock = rw_lock
        self._classifier = classifier
        self._open = on_store_down == "open"

    def operation(self, name: str) -> "Operation":
        """The locks for one call of `name`, to be entered by `with` or `async with`."""
        reads = self._classifier.classify(name) == "read"
        turn = self._rw_lock.read() if reads else self._rw_lock.write()
        return Operation(name, (self._session_lock.hold(), turn), go_on=self._open)


class Operation(LockContext):
    """Both locks, acquired in order and released in reverse."""

    def __init__(self, name: str, holds: tuple[LockHandle, ...], *, go_on: bool) -> None:
        self.name = name
        self._holds = holds
        self._held: list[LockHandle] = []
        self._go_on = go_on

    @property
    def lost(self) -> bool:
        """True once one of the locks was, or may have been, lost."""
        return any(hold.lost for hold in self._held)

    def enter(self) -> None:
        """Wait for both locks.

        Raises LockBusy when a lock was not free in time, WaitCancelled when cancelled, and
        StoreUnavailable when the store is away and calls are not let through then. Nothing is held
        after any error.
        """
        started = time.monotonic()
        try:
            for hold in self._holds:
                hold.enter()
                self._held.append(hold)
        except BrokerUnavailable as error:
            if not self._go_on:
                self._back_out()
                raise StoreUnavailable(f"{self.name} was not called: {error}") from error
            _OPEN.passed(self.name, error)
        except LockBusy as error:
            self._back_out()
            logger.warning("%s was not called: %s", self.name, error)
            raise
        except BaseException:
            self._back_out()
            raise
        waited_s = time.monotonic() - started
        if waited_s > WAIT_LOGGED_S:
            logger.info("%s waited %.0f ms for its locks", self.name, waited_s * 1000)

    def leave(self) -> None:
        """Release what is held. Raises LockLost when a hold had ended before."""
        lost: LockLost | None = None
        while self._held:
            try:
                self._held.pop().leave()
            except LockLost as error:
                lost = lost or error
        if lost:
            raise lost

    def cancel(self) -> None:
        """End `enter` in another thread."""
        for hold in reversed(self._holds):
            hold.cancel()

    def _back_out(self) -> None:
        try:
            self.leave()
        except LockLost as lost:
            # Nothing was done under it yet.
            logger.info("%s", lost)


class _OpenCalls:
    """Logs that calls go through without locks: the first, then once a minute with their number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged_at = -OPEN_LOGGED_EVERY_S
        self._unsaid = 0

    def passed(self, name: str, error: BrokerUnavailable) -> None:
        with self._lock:
            self._unsaid += 1
            now = time.monotonic()
            if now - self._logged_at < OPEN_LOGGED_EVERY_S:
                return
            count, self._unsaid, self._logged_at = self._unsaid, 0, now
        logger.error(
            "calls go through WITHOUT LOCKS, %d since this was last said, now %s "
            "(locks.on_store_down = open): %s",
            count,
            name,
            error,
        )


_OPEN = _OpenCalls()
