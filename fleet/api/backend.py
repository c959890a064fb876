"""What the routes work on, opened at first use: the API starts without a broker, and says so."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fleet import runtime
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.config.settings import Settings
from fleet.intake.intake import Intake
from fleet.intake.spool.components import SpoolComponents
from fleet.intake.spool.drainer import Drainer
from fleet.ledger import ValkeyLedger
from fleet.store import Store

#: Reading the ledger is waiting for the store, mostly. As many requests may wait as events may.
READERS = 4
READS_WAITING_MAX = 1024


@dataclass(frozen=True, slots=True)
class Backend:
    """The fleet as one API process sees it. The openers raise BrokerUnavailable or ConfigError."""

    settings: Settings
    store: Callable[[], Store]
    ledger: Callable[[], ValkeyLedger]
    intake: Callable[[], Intake]
    shelter: SpoolComponents
    keeper: Drainer
    #: For what must not wait until the breaker closes again; absent, `store`.
    unguarded: Callable[[], Store] | None = None
    reads: BoundedThreads = field(
        default_factory=lambda: BoundedThreads("reads", READERS, READS_WAITING_MAX)
    )


def of_this_process() -> Backend:
    """The backend that this process's configuration names. Raises ConfigError."""
    runtime.guard()
    return Backend(
        runtime.settings(),
        runtime.store,
        runtime.ledger,
        runtime.spooling_intake,
        runtime.spool_components(),
        runtime.drainer(),
        runtime.unguarded_store,
    )
