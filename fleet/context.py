"""What one process of the fleet shares: its settings, its store, its ledger and its intake.

Opened at first use and kept; redis-py's pools notice a fork and reconnect in the child.
"""

from functools import cache

from fleet.intake import Intake
from fleet.ledger import ValkeyLedger
from fleet.publish import Bell
from fleet.settings import Settings, load
from fleet.store import Store, open_store
from fleet.store.address import rings_in_store, store_url


@cache
def store() -> Store:
    """The store of this process. Raises ConfigError or BrokerUnavailable."""
    settings = load()
    return open_store(
        store_url(settings),
        bus_max_length=settings.bus.max_length,
        rings=rings_in_store(settings),
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
    """The intake of this process."""
    return Intake(ledger(), load().rules(), load().governance())


def settings() -> Settings:
    """The settings of this process."""
    return load()
