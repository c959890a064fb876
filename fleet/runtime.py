"""What one process of the fleet shares: its settings, its store, its ledger and its intake.

Opened at first use and kept; redis-py's pools notice a fork and reconnect in the child.
"""

from functools import cache

from fleet.config.settings import Settings, load
from fleet.errors import BrokerUnavailable
from fleet.intake.intake import Intake
from fleet.intake.spool.acceptors import SpoolAwareAcceptor, SpoolingAcceptor
from fleet.intake.spool.components import SpoolComponents
from fleet.intake.spool.drainer import Drainer
from fleet.intake.spool.offline import OfflineProcess
from fleet.ledger import ValkeyLedger
from fleet.store import Store, open_store
from fleet.store.address import rings_in_store, store_url
from fleet.store.connection import SOCKET_TIMEOUT_S
from fleet.store.wakeup import WakeupPublisher

#: At the door: longer than any healthy accept takes. What is slower is kept in the spool.
INTAKE_TIMEOUT_S = 2.0

_guarded = False


def guard() -> None:
    """From now on this process's calls stand behind the breaker; before any store is opened."""
    global _guarded
    _guarded = True


@cache
def store() -> Store:
    """The store of this process. Raises ConfigError or BrokerUnavailable."""
    return _open(guarded=_guarded)


@cache
def unguarded_store() -> Store:
    """The store, asked also while the breaker is open. Raises ConfigError or BrokerUnavailable."""
    return _open(guarded=False, timeout_s=INTAKE_TIMEOUT_S)


@cache
def spool_components() -> SpoolComponents:
    """The breaker and the spool of this process's data folder."""
    return SpoolComponents.of(load())


@cache
def drainer() -> Drainer:
    """What empties the spool; one process of a data folder runs it."""

    def unguarded() -> Store:
        return _open(guarded=False, timeout_s=INTAKE_TIMEOUT_S)

    here = spool_components()
    direct = OfflineProcess(load(), here.breaker, here.runs) if here.submissions else None
    return Drainer(here, _intake_ledger, unguarded, direct)


@cache
def spooling_intake() -> Intake:
    """The intake of a process that keeps what the broker does not take. Raises ConfigError only."""
    here = spool_components()
    door = SpoolingAcceptor(
        _intake_ledger, here.breaker, here.spool, drainer().wake, here.submissions
    )
    return Intake(door, load().rules(), load().routing_chains())


@cache
def _intake_ledger() -> ValkeyLedger:
    return ValkeyLedger(_open(guarded=True, timeout_s=INTAKE_TIMEOUT_S), load(), wakeup_publisher())


def _open(*, guarded: bool, timeout_s: float = SOCKET_TIMEOUT_S) -> Store:
    settings = load()
    try:
        url = store_url(settings)
    except BrokerUnavailable:
        if guarded:
            spool_components().breaker.record_failure("no broker is running")
        raise
    return open_store(
        url,
        bus_max_length=settings.bus.max_length,
        rings=rings_in_store(settings),
        socket_timeout_s=timeout_s,
        connect_timeout_s=timeout_s,
        guard=spool_components().breaker if guarded else None,
    )


@cache
def wakeup_publisher() -> WakeupPublisher | None:
    """How to ring where the broker is not the store; None where the scripts do."""
    if rings_in_store(load()):
        return None
    from fleet.store.wakeup_publisher import CeleryWakeupPublisher

    return CeleryWakeupPublisher(load())


@cache
def ledger() -> ValkeyLedger:
    """The ledger of this process."""
    settings = load()
    return ValkeyLedger(store(), settings, wakeup_publisher())


@cache
def intake() -> Intake:
    """The intake of this process, which keeps nothing itself."""
    here = spool_components()
    accepts = (
        SpoolAwareAcceptor(ledger(), here.spool, here.submissions) if here.submissions else ledger()
    )
    return Intake(accepts, load().rules(), load().routing_chains())


def settings() -> Settings:
    """The settings of this process."""
    return load()
