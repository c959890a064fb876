"""Where an event goes in: into the ledger while all is well, else into the spool."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from fleet.broker.breaker import Breaker
from fleet.errors import BrokerUnavailable
from fleet.intake.spool.submission_log import SubmissionLog
from fleet.intake.spool.table import Spool, SpoolFull
from fleet.ledger.protocol import Accepted, Acceptor, Answer
from fleet.store import keys
from routing import Event, Plan

logger = logging.getLogger(__name__)

#: How long one who keeps nothing himself waits until the spool is empty; the look is one byte.
TIMEOUT_S = 3.0
POLL_INTERVAL_S = 0.05


class SpoolingAcceptor(Acceptor):
    """Raises SpoolFull, a BrokerUnavailable, when neither takes the event.

    A batch of which the ledger's answer was lost is kept as a whole, whatever part of it has
    landed: the keeper hands it over again, and nothing of it runs twice.
    """

    def __init__(
        self,
        ledger: Callable[[], Acceptor],
        breaker: Breaker,
        spool: Spool,
        wake: Callable[[], None] = lambda: None,
        offered: SubmissionLog | None = None,
    ) -> None:
        """`ledger` may raise BrokerUnavailable; `wake` is called when the spool has grown."""
        self._ledger = ledger
        self._breaker = breaker
        self._spool = spool
        self._wake = wake
        self._offered = offered

    def accept_many(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        """As `Acceptor.accept_many`."""
        spool = self._spool
        if not spool.enabled or (self._breaker.closed and not spool.holds):
            if self._offered is not None:
                self._offered.record(_digests(batch))
            try:
                return self._ledger().accept_many(batch)
            except BrokerUnavailable:
                if not spool.enabled:
                    raise
        answers = self._keep(batch)
        self._wake()
        return answers

    def _keep(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        try:
            answers = self._spool.store(batch)
        except SpoolFull as error:
            logger.warning("refused %d events: %s", len(batch), error)
            self._spool.count_refused(len(batch))
            raise SpoolFull(f"The broker is away, and {error}") from error
        if self._offered is not None:
            # It may run now: sent again when the spool knows it no more, it has perhaps run.
            pairs = zip(batch, answers, strict=True)
            self._offered.record(_digests([event for event, answer in pairs if _is_new(answer)]))
        return answers


class SpoolAwareAcceptor(Acceptor):
    """For those who keep nothing: they come after what the spool holds.

    For a process that only works while the broker is there, such as a worker. Where turns run from
    the spool it must not offer the ledger an event that may have run there. Raises
    BrokerUnavailable while the spool is not empty.
    """

    def __init__(
        self, ledger: Acceptor, spool: Spool, offered: SubmissionLog, patience_s: float = TIMEOUT_S
    ) -> None:
        self._ledger = ledger
        self._spool = spool
        self._offered = offered
        self._patience_s = patience_s

    def accept_many(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        """As `Acceptor.accept_many`."""
        # First noted, then looked: whoever keeps the same event now does it the other way round.
        self._offered.record(_digests(batch))
        until = time.monotonic() + self._patience_s
        while self._spool.holds:
            if time.monotonic() > until:
                raise BrokerUnavailable(
                    "What was kept while the broker was away is not handed over yet: send it later."
                )
            time.sleep(POLL_INTERVAL_S)
        return self._ledger.accept_many(batch)


def _is_new(answer: Answer) -> bool:
    return isinstance(answer, Accepted) and not answer.duplicate


def _digests(batch: Sequence[tuple[Event, Plan]]) -> Iterator[str]:
    return (keys.event_digest(event.key) for event, _ in batch)
