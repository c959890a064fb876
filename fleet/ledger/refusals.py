"""Refusals of Celery's way in, counted: one is its producer's affair, a series an operator's."""

from dataclasses import dataclass
from typing import Any

from fleet.store import Store, keys
from fleet.store.alert_calls import RefusingCall
from fleet.store.connection import reachable

#: Refusals this far apart are not of one series; a series is over as long after its last one.
GAP_S = 15.0


@dataclass(frozen=True, slots=True)
class Refusals:
    """The present series of refusals."""

    count: int
    lasted_s: float  #: from its first refusal to its last


def count(store: Store) -> None:
    """Count a refusal. Raises BrokerUnavailable."""
    store.run(RefusingCall(gap_ms=int(GAP_S * 1000)))


def present(store: Store) -> Refusals | None:
    """The series that goes on now. Raises BrokerUnavailable."""
    with reachable():
        found: Any = store.client.hgetall(keys.REFUSING)
        now_ms = store.clock.now_ms()
    if not found or now_ms - float(found["last_ms"]) > GAP_S * 1000:
        return None
    lasted_s = (float(found["last_ms"]) - float(found["since_ms"])) / 1000
    return Refusals(int(found["count"]), lasted_s)
