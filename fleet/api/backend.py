"""What the routes work on, opened at first use: the API starts without a broker, and says so."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fleet import context
from fleet.api.lanes import Lane
from fleet.intake import Intake
from fleet.ledger import ValkeyLedger
from fleet.settings import Settings
from fleet.spool.keeper import Keeper
from fleet.spool.shelter import Shelter
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
    shelter: Shelter
    keeper: Keeper
    #: For what must not wait until the breaker closes again; absent, `store`.
    unguarded: Callable[[], Store] | None = None
    reads: Lane = field(default_factory=lambda: Lane("reads", READERS, READS_WAITING_MAX))


def of_this_process() -> Backend:
    """The backend that this process's configuration names. Raises ConfigError."""
    context.guard()
    return Backend(
        context.settings(),
        context.store,
        context.ledger,
        context.sheltered_intake,
        context.shelter(),
        context.keeper(),
        context.unguarded_store,
    )
