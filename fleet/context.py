"""What one process of the fleet shares: its settings, its store, its ledger and its intake.

Opened at first use and kept; redis-py's pools notice a fork and reconnect in the child.
"""

from functools import cache

from fleet.errors import BrokerUnavailable
from fleet.intake import Intake
from fleet.ledger import ValkeyLedger
from fleet.publish import Bell
from fleet.settings import Settings, load
from fleet.spool.direct import Direct
from fleet.spool.door import Behind, Door
from fleet.spool.keeper import Keeper
from fleet.spool.shelter import Shelter
from fleet.store import Store, open_store
from fleet.store.address import rings_in_store, store_url
from fleet.store.connection import SOCKET_TIMEOUT_S

#: At the door: longer than any healthy accept takes. What is slower is kept in the spool.
DOOR_TIMEOUT_S = 2.0

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
    return _open(guarded=False, timeout_s=DOOR_TIMEOUT_S)


@cache
def shelter() -> Shelter:
    """The breaker and the spool of this process's data folder."""
    return Shelter.of(load())


@cache
def keeper() -> Keeper:
    """What empties the spool; one process of a data folder runs it."""

    def unguarded() -> Store:
        return _open(guarded=False, timeout_s=DOOR_TIMEOUT_S)

    here = shelter()
    direct = Direct(load(), here.breaker, here.runs) if here.offered else None
    return Keeper(here, _door_ledger, unguarded, direct)


@cache
def sheltered_intake() -> Intake:
    """The intake of a process that keeps what the broker does not take. Raises ConfigError only."""
    here = shelter()
    door = Door(_door_ledger, here.breaker, here.spool, keeper().wake, here.offered)
    return Intake(door, load().rules(), load().governance())


@cache
def _door_ledger() -> ValkeyLedger:
    return ValkeyLedger(_open(guarded=True, timeout_s=DOOR_TIMEOUT_S), load(), bell())


def _open(*, guarded: bool, timeout_s: float = SOCKET_TIMEOUT_S) -> Store:
    settings = load()
    try:
        url = store_url(settings)
    except BrokerUnavailable:
        if guarded:
            shelter().breaker.failed("no broker is running")
        raise
    return open_store(
        url,
        bus_max_length=settings.bus.max_length,
        rings=rings_in_store(settings),
        socket_timeout_s=timeout_s,
        connect_timeout_s=timeout_s,
        guard=shelter().breaker if guarded else None,
    )


@cache
def bell() -> Bell | None:
    """How to ring where the broker is not the store; None where the scripts do."""
    if rings_in_store(load()):
        return None
    from fleet.bell import CeleryBell

    return CeleryBell(load())


@cache
def ledger() -> ValkeyLedger:
    """The ledger of this process."""
    settings = load()
    return ValkeyLedger(store(), settings, bell())


@cache
def intake() -> Intake:
    """The intake of this process, which keeps nothing itself."""
    here = shelter()
    accepts = Behind(ledger(), here.spool, here.offered) if here.offered else ledger()
    return Intake(accepts, load().rules(), load().governance())


def settings() -> Settings:
    """The settings of this process."""
    return load()
