"""The workers of a pool, as the store knows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleet.store import Store, keys
from fleet.store.connection import reachable


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWorker:
    """A living worker of a pool."""

    name: str
    processes: int
    until_ms: float
    since_ms: float
    holder: str


def living(store: Store, pool: str, now_ms: float) -> list[PoolWorker]:
    """The living workers of a pool, the newest first. Raises BrokerUnavailable."""
    with reachable():
        rows: Any = store.client.hgetall(keys.pool(pool))
    found = []
    for name, row in rows.items():
        if name.startswith("|"):
            continue
        processes, until_ms, since_ms, holder = row.split(" ", 3)
        if float(until_ms) > now_ms:
            found.append(
                PoolWorker(
                    name=name,
                    processes=int(processes),
                    until_ms=float(until_ms),
                    since_ms=float(since_ms),
                    holder=holder,
                )
            )
    return sorted(found, key=lambda one: -one.since_ms)


def lease_of(workers: Sequence[PoolWorker]) -> dict[str, str]:
    """The pool's own stand-in for an agent's lease; empty without a worker."""
    if not workers:
        return {}
    return {
        "holder": workers[0].holder,
        "since_ms": str(workers[0].since_ms),
        "fence": f"{workers[0].since_ms:.0f}",
        "consuming": "1",
    }
