"""The table of agents: configuration, holder, queue and spend in a row for each agent."""

from collections.abc import Sequence
from typing import Any

from fleet.config.settings import Settings
from fleet.ledger import views
from fleet.store import Store


def rows(store: Store, settings: Settings, names: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each of `names`, which must be agents. Raises BrokerUnavailable."""
    found = views.agents(store, names)
    counts = views.counts(store, names)
    spent = views.spend(store, names)
    return [
        {
            "agent": name,
            "status": status(found[name]),
            "runner": settings.agents[name].runner,
            "model": settings.agents[name].model,
            **found[name],
            **counts[name],
            "spend": spent[name],
        }
        for name in names
    ]


def status(row: dict[str, Any]) -> str:
    """The status in one word: `paused`, `offline`, `busy` or `idle`."""
    if row["paused"]:
        return "paused"
    if not row["online"]:
        return "offline"
    return "busy" if row["active"] else "idle"
