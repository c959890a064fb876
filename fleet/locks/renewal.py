"""One thread per process that renews every held lock, and retries failed releases.

A hold is known here by a weak reference only: one that was lost sight of is not renewed for ever,
and ends with its time to live. Registering costs no lock and wakes nobody unless the hold is due
before the thread looks again, because most holds are given back long before that.
"""

import logging
import math
import os
import threading
import time
import weakref
from typing import Protocol

from fleet.errors import BrokerUnavailable
from fleet.locks.calls import LockCalls
from fleet.locks.errors import LockLost

logger = logging.getLogger(__name__)

#: Between two attempts to reach a store that is away; less for holds that end sooner.
RETRY_DELAY_S = 1.0

#: Older ones end by their own time to live while the store is away for long.
UNSETTLED_MAX = 10_000


class Renewable(Protocol):
    """A hold as this thread needs it."""

    id: str
    calls: LockCalls
    ttl_s: float
    renew_at: float  #: in time.monotonic() seconds

    def renew(self) -> None:
        """One renewal. Raises LockLost and BrokerUnavailable."""

    def withdraw(self) -> None:
        """Withdraw the id from the store; may be repeated. Raises BrokerUnavailable."""


class Renewal:
    """The holds of this process. Safe to call from any thread; starts afresh after a fork."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._holds: dict[str, weakref.ref[Renewable]] = {}
        self._unsettled: dict[str, tuple[Renewable, float]] = {}
        self._next_at = math.inf
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, hold: Renewable) -> None:
        """Renew it until it is dropped."""
        self._holds[hold.id] = weakref.ref(hold)
        if hold.renew_at < self._next_at:
            self._call()

    def remove(self, hold: Renewable) -> None:
        """Renew it no more."""
        self._holds.pop(hold.id, None)

    def reconcile(self, hold: Renewable) -> None:
        """Withdraw it as soon as the store answers, or until it has ended by itself."""
        if len(self._unsettled) < UNSETTLED_MAX:
            self._unsettled[hold.id] = (hold, time.monotonic() + hold.ttl_s + 2 * RETRY_DELAY_S)
        self._call()

    def _call(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="fleet-locks", daemon=True)
                self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        while True:
            # Infinite while it looks, so that a hold registered now makes it look again.
            self._next_at = math.inf
            self._wake.clear()
            away: set[LockCalls] = set()
            next_at = min(self._renew(away), self._withdraw(away))
            self._next_at = next_at
            pause = next_at - time.monotonic()
            self._wake.wait(None if pause == math.inf else max(0.0, pause))

    def _renew(self, away: set[LockCalls]) -> float:
        """Renew what is due; when the next one is. A store that is away is asked once only."""
        next_at = math.inf
        for hold_id, known in list(self._holds.items()):
            hold = known()
            if hold is None:
                self._holds.pop(hold_id, None)
                continue
            if hold.renew_at <= time.monotonic():
                self._renew_one(hold, away)
            next_at = min(next_at, hold.renew_at)
        return next_at

    def _renew_one(self, hold: Renewable, away: set[LockCalls]) -> None:
        try:
            if hold.calls not in away:
                hold.renew()
                return
        except LockLost as lost:
            self.remove(hold)
            hold.renew_at = math.inf
            logger.warning("%s", lost)
            return
        except BrokerUnavailable as error:
            away.add(hold.calls)
            logger.warning("locks cannot be renewed: %s", error)
        hold.renew_at = time.monotonic() + min(RETRY_DELAY_S, hold.ttl_s / 10)

    def _withdraw(self, away: set[LockCalls]) -> float:
        """Withdraw what is unsettled; when to try again."""
        for hold_id, (hold, until) in list(self._unsettled.items()):
            try:
                if hold.calls in away:
                    continue
                if time.monotonic() < until:
                    hold.withdraw()
                self._unsettled.pop(hold_id, None)
            except BrokerUnavailable:
                away.add(hold.calls)
        return time.monotonic() + RETRY_DELAY_S if self._unsettled else math.inf


RENEWAL = Renewal()
# A parent's holds are none of its child's.
os.register_at_fork(after_in_child=RENEWAL._begin)
