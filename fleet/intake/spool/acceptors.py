"""The acceptors before the ledger: they know the breaker and the spool."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleet.broker.breaker import Breaker
from fleet.errors import BrokerRefusal, BrokerUnavailable
from fleet.intake.spool.folder import SpoolFull
from fleet.intake.spool.spool import Spool
from fleet.ledger.protocol import Acceptor, Answer
from routing import Event, Plan

logger = logging.getLogger(__name__)

#: How long a process that spools nothing waits until the spool is empty.
TIMEOUT_S = 3.0
POLL_INTERVAL_S = 0.05


class SpoolingAcceptor(Acceptor):
    """Accepts into the ledger while all is well, otherwise into the spool.

    Raises SpoolFull, a BrokerUnavailable, when neither accepts. A batch whose answer was lost is
    spooled whole, whatever part of it has landed: importing it again runs nothing twice.
    """

    def __init__(
        self,
        ledger: Callable[[], Acceptor],
        breaker: Breaker,
        spool: Spool,
        wake: Callable[[], None] = lambda: None,
        *,
        got_in: bool = True,
    ) -> None:
        """`ledger` may raise BrokerUnavailable; `wake` is called when the spool has grown.

        Without `got_in` the password or certificates of this process may be wrong: where broker
        or process refuse them, BrokerRefusal is raised, and nothing is spooled.
        """
        self._got_in = got_in
        self._ledger = ledger
        self._breaker = breaker
        self._spool = spool
        self._wake = wake

    def accept_many(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        """Accept each in turn; see `Acceptor`."""
        if not self._spool.enabled:
            return self._ledger().accept_many(batch)
        if not self._got_in and (refusal := self._breaker.read_state()[0].refusal):
            raise BrokerRefusal(refusal)
        if self._breaker.closed and not self._spool.holds:
            # First record, then look again: whoever lets an event run does it the other way round.
            self._spool.record_submissions(event for event, _ in batch)
            if not self._spool.holds:
                try:
                    return self._ledger().accept_many(batch)
                except BrokerUnavailable as error:
                    if not self._got_in and isinstance(error, BrokerRefusal):
                        raise
                    logger.debug("%d events go into the spool: %s", len(batch), error)
        return self._store(batch)

    def _store(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        try:
            answers = self._spool.store(batch)
        except SpoolFull as error:
            logger.warning("refused %d events: %s", len(batch), error)
            self._spool.count_refused(len(batch))
            raise SpoolFull(f"The broker is away, and {error}") from error
        self._wake()
        return answers


class SpoolAwareAcceptor(Acceptor):
    """Accepts into the ledger once the spool is empty; for a process that spools nothing.

    Where turns run from the spool, such a process must not submit an event that may have run there.
    Raises BrokerUnavailable while the spool is not empty.
    """

    def __init__(self, ledger: Acceptor, spool: Spool, timeout_s: float = TIMEOUT_S) -> None:
        self._ledger = ledger
        self._spool = spool
        self._timeout_s = timeout_s

    def accept_many(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        """Accept each in turn; see `Acceptor`."""
        # First record, then look: whoever lets an event run does it the other way round.
        self._spool.record_submissions(event for event, _ in batch)
        until = time.monotonic() + self._timeout_s
        while self._spool.holds:
            if time.monotonic() > until:
                raise BrokerUnavailable(
                    "The spool still holds events of an outage: send this one later."
                )
            time.sleep(POLL_INTERVAL_S)
        return self._ledger.accept_many(batch)


@dataclass(frozen=True, slots=True)
class FailureRecorder:
    """A `CallGuard` for calls whose caller has read the breaker: it only records failures."""

    breaker: Breaker

    def check(self) -> None:
        """Let every call through."""

    def record_error(self, error: Exception) -> None:
        """Count a failed call."""
        self.breaker.record_error(error)
