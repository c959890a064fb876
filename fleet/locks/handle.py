"""One hold of a lock: its wait, its life and its end.

A lock has holds of one group at a time: the calls of one turn, the readers of one turn, or a single
writer. Everybody else stands in line. Who waits blocks on a list of its own and asks anew when it
is woken, when the holds end by themselves, and at least every half second, which is also what keeps
its place. The store's answer to that question is the only truth; a wake-up promises nothing.

How long a hold certainly lasts is counted here from before the question was sent, so it never
outlasts the store's own count. After a pause past that (a stopped process, a store that was away)
`lost` is true before anything was asked.

A question whose answer never came may have been, or may yet be, granted. So it is withdrawn: the
store ends whatever the id holds and refuses it from then on.
"""

import logging
import secrets
import time
from dataclasses import dataclass, replace

from fleet.errors import BrokerUnavailable
from fleet.locks.calls import LockAcquireCall, LockCalls, LockReleaseCall, LockRenewCall
from fleet.locks.context import LockContext
from fleet.locks.errors import LockBusy, LockLost, WaitCancelled
from fleet.locks.renewal import RENEWAL
from fleet.store import keys

logger = logging.getLogger(__name__)

#: A waiter asks at least this often: it notices a dead one before it, and keeps its own place.
ASK_S_MAX = 0.5

#: So many questions may fail to come before a waiter counts as dead.
ASKS_MISSED = 3

#: No packet is on its way for longer. A withdrawn id is refused this long.
REFUSE_MS = 60_000


@dataclass(slots=True)
class Terms:
    """The request of one lock object's holds; see the arguments of `lock_acquire.lua`."""

    calls: LockCalls
    lock: str  #: its name in the store
    group: str  #: holds of one group share the lock; empty: this one shares it with none
    manner: str
    ttl_s: float
    title: str  #: for people
    waited: bool = False  #: the last one had to wait, so the next one is ready to


class LockHandle(LockContext):
    """Not held until entered. The same object may be asked from several threads."""

    def __init__(self, terms: Terms, timeout_s: float) -> None:
        self.id = secrets.token_hex(8)
        self.calls = terms.calls
        self.terms = terms
        self.ttl_s = terms.ttl_s
        self.renew_at = 0.0
        self._timeout_s = timeout_s
        self._token = 0
        self._valid_until = 0.0
        self._gone = False
        self._cancelled = False

    @property
    def lost(self) -> bool:
        """True once the hold has ended, or may have ended, without being given back."""
        return self._gone or (self._token > 0 and time.monotonic() >= self._valid_until)

    @property
    def token(self) -> int:
        """The fencing token: greater than that of every earlier group of holds.

        Raises LockLost when the hold may have ended, or has not begun.
        """
        if self.lost or not self._token:
            raise self._loss()
        return self._token

    def check(self) -> int:
        """Ask the store whether the hold lasts, which renews it; its token. Raises LockLost."""
        self.renew()
        return self._token

    def renew(self) -> None:
        """Another time to live. Done by itself at a third of it. Raises LockLost."""
        sent = time.monotonic()
        call = LockRenewCall(lock=self.terms.lock, id=self.id, ttl_ms=self._ttl_ms)
        if not self.calls.call(call):
            self._gone = True
            raise self._loss()
        self._held_since(sent)

    def enter(self) -> None:
        """Wait for the lock.

        Raises LockBusy when it was not free in time, WaitCancelled when another thread cancelled,
        and BrokerUnavailable. Nothing is held and no place is kept after any error.
        """
        try:
            self._wait()
        except BrokerUnavailable:
            self._cancelled = True
            RENEWAL.reconcile(self)
            raise
        except BaseException:
            self.cancel()
            raise

    def leave(self) -> None:
        """Release it. Raises LockLost when it had ended before.

        While the store is away that is done later: until then nobody else gets in, and a hold that
        lasted up to here protected all that was done under it.
        """
        if self._cancelled:
            return
        RENEWAL.remove(self)
        held = None
        try:
            call = LockReleaseCall(lock=self.terms.lock, id=self.id)
            held = self.calls.call(call, repeat=False)
        except BrokerUnavailable as error:
            logger.warning("%s is released later: %s", self.terms.title, error)
            RENEWAL.reconcile(self)
        except BaseException:
            RENEWAL.reconcile(self)
            raise
        if held == 0 or (held is None and self.lost):
            self._gone = True
            raise self._loss()
        self._token = 0

    def cancel(self) -> None:
        """Release it or leave the line, at once where the store answers, otherwise when it does."""
        self._cancelled = True
        RENEWAL.remove(self)
        try:
            self.withdraw()
        except BrokerUnavailable:
            RENEWAL.reconcile(self)

    def withdraw(self) -> None:
        """Withdraw the id from the store, now and later. Raises BrokerUnavailable."""
        call = LockReleaseCall(lock=self.terms.lock, id=self.id, refuse_ms=REFUSE_MS)
        self.calls.call(call)

    @property
    def _ttl_ms(self) -> int:
        return int(self.ttl_s * 1000)

    def _wait(self) -> None:
        sent = time.monotonic()
        until = sent + self._timeout_s
        answer = self._ask(0, self._timeout_s if self.terms.waited else 0.0)
        while answer[0] == 0:
            self.terms.waited = True
            _, place, ask_ms = answer
            sent = time.monotonic()
            if sent >= until:
                raise self._busy(ask_ms)
            answer = self._ask(place, min(until - sent, ask_ms / 1000))
        if answer[0] < 0:
            raise self._given_up()
        _, self._token, had = answer
        self.terms.waited = self.terms.waited and not had
        self._held_since(sent)
        RENEWAL.add(self)
        # Looked at after it is kept: whoever cancels says so first and drops it then.
        if self._cancelled:
            raise self._given_up()

    def _ask(self, place: int, at_most_s: float) -> tuple[int, ...]:
        """Ask for the lock, after a wait of `at_most_s`; without a `place`, ask before it too."""
        terms = self.terms
        # A hold is counted from before the question, so that must not wait for long.
        ask_s = min(ASK_S_MAX, self.ttl_s / 3, self.calls.block_s_max)
        call = LockAcquireCall(
            lock=terms.lock,
            id=self.id,
            group=terms.group or self.id,
            manner=terms.manner,
            ttl_ms=self._ttl_ms,
            place=place,
            keep_ms=int(ASKS_MISSED * ask_s * 1000),
        )
        if not at_most_s:
            return self.calls.call(call)
        ahead = None if place else replace(call, wakes=1)
        wakeup = keys.lock_wake(self.id)
        return self.calls.wait(wakeup, min(at_most_s, ask_s), call, ahead=ahead)

    def _held_since(self, sent: float) -> None:
        self._valid_until = sent + self.ttl_s
        self.renew_at = sent + self.ttl_s / 3

    def _busy(self, held_ms: int) -> LockBusy:
        # Until then the holder gives it back or, if it is dead, loses it; it seldom takes so long.
        retry_after_s = max(0.1, min(held_ms / 1000, self._timeout_s))
        return LockBusy(
            f"{self.terms.title} was busy for {self._timeout_s:g} s; ask again later.",
            retry_after_s=retry_after_s,
        )

    def _given_up(self) -> WaitCancelled:
        return WaitCancelled(f"The wait for {self.terms.title} was cancelled.")

    def _loss(self) -> LockLost:
        if not self._token and not self._gone:
            return LockLost(f"{self.terms.title} is not held.")
        return LockLost(f"{self.terms.title} was lost: its holder was silent for too long.")
