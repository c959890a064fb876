"""Work of agents that were removed from the configuration, or renamed: nobody takes it.

The store counts the dispatches of each agent that it ever had, so it knows these too.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.errors import BrokerUnavailable
from fleet.ledger.states import State
from fleet.store import Store, keys
from fleet.store.connection import reachable
from routing.chains import HUMAN_MARK

#: What a worker would have to do. An announced outcome needs none.
_UNFINISHED = (State.QUEUED, State.RETRYING, State.ACTIVE)


def names(store: Store) -> frozenset[str]:
    """All agents and people that ever had a dispatch. Raises BrokerUnavailable."""
    return frozenset(_counts(store))


def work(store: Store, configured: Iterable[str]) -> dict[str, dict[str, int]]:
    """The unfinished dispatches by state of each agent that is not `configured`.

    One that a worker still serves is not removed: that worker was started with a configuration of
    its own. Raises BrokerUnavailable.
    """
    known = frozenset(configured)
    found = {
        name: {state.value: row[state] for state in _UNFINISHED if row.get(state, 0) > 0}
        for name, row in sorted(_counts(store).items())
        if name not in known and not name.startswith(HUMAN_MARK)
    }
    found = {name: row for name, row in found.items() if row}
    if not found:
        return {}
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        for name in found:
            pipe.exists(keys.lease(name))
        served = pipe.execute()
    return {name: row for (name, row), live in zip(found.items(), served, strict=True) if not live}


def sentence(name: str, row: Mapping[str, int]) -> str:
    """The fault in words, for a line at the start, an alert and the doctor."""
    found = " and ".join(f"{number} {state}" for state, number in row.items())
    return f"{name} is not in the configuration any more and still has work: {found}"


def remedy(name: str) -> str:
    """The ways out in words."""
    return (
        f"`fleet queue move {name} NEW` gives it to another agent, "
        f"`fleet queue drain {name} --confirm` cancels it"
    )


def lines(store: Store, configured: Iterable[str]) -> list[str]:
    """One for each at a start; none while the store is away, since an alert comes later."""
    try:
        found = work(store, configured)
    except BrokerUnavailable:
        return []
    return [f"{sentence(name, row)}; {remedy(name)}" for name, row in found.items()]


def _counts(store: Store) -> dict[str, dict[str, int]]:
    with reachable():
        flat: Any = store.client.hgetall(keys.COUNTS)
    found: dict[str, dict[str, int]] = {}
    for field, value in flat.items():
        name, _, state = field.partition("|")
        found.setdefault(name, {})[state] = int(value)
    return found
