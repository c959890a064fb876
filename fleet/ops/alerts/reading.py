"""The conditions of a fleet, read from its store, for alerts and `fleet doctor` alike."""

from typing import TYPE_CHECKING

from fleet.config.settings import Settings
from fleet.ledger import agent_rows, processes, refusals, removed, starting, views
from fleet.ledger.dead_letters import newest_reasons
from fleet.ops.alerts.conditions import Condition, current
from fleet.store import Store, keys
from fleet.store.connection import reachable
from fleet.turn import providers
from fleet.turn.budget import BudgetState, of_today

if TYPE_CHECKING:
    from fleet.store.wakeup_publisher import CeleryWakeupPublisher


def conditions(
    store: Store,
    settings: Settings,
    wakeups: "CeleryWakeupPublisher | None" = None,
) -> list[Condition]:
    """The present conditions. Raises BrokerUnavailable.

    `wakeups` asks the broker that is not the store.
    """
    names = list(settings.agents)
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        pipe.hgetall(keys.BEAT)
        pipe.info("memory")
        pipe.hget(keys.LOST, "reason")
        ticks, memory, lost = pipe.execute()
        now_s = store.clock.now_ms() / 1000
    most = int(memory.get("maxmemory", 0)) * settings.caps.store_memory
    newest = max((float(tick) for tick in ticks.values()), default=None)
    counts = views.counts(store, names)
    return current(
        counts,
        agent_rows.rows(store, names),
        None if newest is None else now_s - newest,
        newest_reasons(store, {name for name in names if counts[name]["states"].get("dead")}),
        lost=str(lost or ""),
        memory_full=0 < most < int(memory["used_memory"]),
        budgets=_budgets(store, settings),
        providers=providers.states(store),
        removed_agents=removed.work(store, settings.agents),
        refusals=refusals.present(store),
        failing=processes.failing(store),
        down=_down(store, settings),
        starting=starting.names(store),
        wakeup_fault=wakeups.fault() if wakeups else "",
    )


def _down(store: Store, settings: Settings) -> dict[str, str]:
    """The receivers that take no outcome, and why."""
    names = [*settings.deliveries, "upstream"]
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        for name in names:
            pipe.hget(keys.target(name), "down")
        return {name: why for name, why in zip(names, pipe.execute(), strict=True) if why}


def _budgets(store: Store, settings: Settings) -> dict[str, BudgetState]:
    agents = settings.agents
    found = {
        name: of_today(agents[name].budget, row)
        for name, row in views.spend(store, list(agents)).items()
    }
    return {name: budget for name, budget in found.items() if budget}
