"""Where an event goes in: into the ledger while all is well, else into the spool."""

import logging
from collections.abc import Callable, Sequence

from fleet.broker.breaker import Breaker
from fleet.errors import BrokerUnavailable, Refused
from fleet.ledger.protocol import Accepted, Acceptor
from fleet.spool.table import Spool, SpoolFull
from routing import Event, Plan

logger = logging.getLogger(__name__)


class Door:
    """Implements `Acceptor`. Raises SpoolFull, a BrokerUnavailable, when neither takes the event.

    A batch of which the ledger's answer was lost is kept as a whole, whatever part of it has
    landed: the keeper hands it over again, and nothing of it runs twice.
    """

    def __init__(
        self,
        ledger: Callable[[], Acceptor],
        breaker: Breaker,
        spool: Spool,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`ledger` may raise BrokerUnavailable; `wake` is called when the spool has grown."""
        self._ledger = ledger
        self._breaker = breaker
        self._spool = spool
        self._wake = wake

    def accept(self, event: Event, plan: Plan) -> Accepted:
        """As `Acceptor.accept`."""
        answer = self.accept_many([(event, plan)])[0]
        if isinstance(answer, Refused):
            raise answer
        return answer

    def accept_many(self, batch: Sequence[tuple[Event, Plan]]) -> list[Accepted | Refused]:
        """As `Acceptor.accept_many`."""
        spool = self._spool
        if not spool.enabled or (self._breaker.closed and not spool.holds):
            try:
                return self._ledger().accept_many(batch)
            except BrokerUnavailable:
                if not spool.enabled:
                    raise
        answers = self._keep(batch)
        self._wake()
        return answers

    def _keep(self, batch: Sequence[tuple[Event, Plan]]) -> list[Accepted | Refused]:
        try:
            return self._spool.keep(batch)
        except SpoolFull as error:
            logger.warning("refused %d events: %s", len(batch), error)
            self._spool.count_refused(len(batch))
            raise SpoolFull(f"The broker is away, and {error}") from error
