"""The table of agents: configuration, holder, queue and spend in a row for each agent."""

from collections.abc import Sequence
from typing import Any

from fleet.config.settings import Settings
from fleet.ledger import FailureStage, agent_rows, views
from fleet.store import Store


def rows(store: Store, settings: Settings, names: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each of `names`; of one that is not configured the status is `removed`.

    Raises BrokerUnavailable.
    """
    found = agent_rows.rows(store, names)
    counts = views.counts(store, names)
    spent = views.spend(store, names)
    return [
        {
            "agent": name,
            "status": status(found[name]) if name in settings.agents else "removed",
            "runner": _configured(settings, name, "runner"),
            "model": _configured(settings, name, "model"),
            **_about(settings, name),
            **found[name],
            **counts[name],
            "spend": spent[name],
        }
        for name in names
    ]


def _about(settings: Settings, name: str) -> dict[str, Any]:
    """The purpose and the limits of an agent; nothing of a removed one."""
    agent = settings.agents.get(name)
    if agent is None:
        return {}
    return {
        "description": agent.description,
        "fallbacks": [tier.model for tier in agent.fallbacks],
        "tools": list(agent.tools),
        "deliver": list(agent.deliver),
        "budget": {
            "usd_per_day": agent.budget.usd_per_day,
            "tokens_per_day": agent.budget.tokens_per_day,
        },
        "limits": {
            "timeout_s": settings.timeout_s(name),
            "max_pending": agent.max_pending,
            "attempts": agent.retry.attempts,
            "on_busy": agent.on_busy,
        },
    }


def _configured(settings: Settings, name: str, option: str) -> str | None:
    return getattr(settings.agents.get(name), option, None)


def status(row: dict[str, Any]) -> str:
    """The status in one word: `paused`, `offline`, `busy` or `idle`.

    `budget` and `held`: its budget is used up, or all its models are left alone for a while.
    """
    if row["paused"]:
        return "paused"
    if not row["online"]:
        return "offline"
    if row["active"]:
        return "busy"
    if row["hold_s"]:
        return "budget" if row["hold_stage"] == FailureStage.BUDGET else "held"
    return "idle"
