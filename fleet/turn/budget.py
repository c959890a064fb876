"""An agent's budget of a day. The day is UTC's, by the store's clock.

The ledger counts a call's cost when it journals the result, for the day on which it does. So an
agent, which runs one turn at a time, passes its budget by at most one model call.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.config.agents import BudgetConfig
from fleet.formats.money import money
from fleet.ledger import views
from fleet.store import Store
from fleet.store.connection import reachable

DAY_S = 86400
#: At this part of a budget operators are alerted.
WARN_AT = 0.8


@dataclass(frozen=True, slots=True)
class BudgetState:
    """The used part of a budget: 1.0 is all of it."""

    part: float
    of: str  #: the nearest bound, in words

    @property
    def spent(self) -> bool:
        """True when no further call may be made."""
        return self.part >= 1.0


def current_budget(budget: BudgetConfig, usd: float, tokens: int) -> BudgetState | None:
    """The budget of an agent that spent so much today; None when it has none."""
    parts = []
    if budget.usd_per_day is not None:
        words = f"{money(usd)} of {money(budget.usd_per_day)} a day"
        parts.append(BudgetState(usd / budget.usd_per_day, words))
    if budget.tokens_per_day is not None:
        words = f"{tokens:,} of {budget.tokens_per_day:,} tokens a day"
        parts.append(BudgetState(tokens / budget.tokens_per_day, words))
    return max(parts, key=lambda found: found.part, default=None)


def of_today(budget: BudgetConfig, row: Mapping[str, Any]) -> BudgetState | None:
    """The same for one row of `fleet.ledger.views.spend`."""
    return current_budget(budget, row["usd"], row["tokens_in"] + row["tokens_out"])


def used_up(store: Store, agent: str, budget: BudgetConfig) -> tuple[BudgetState, float] | None:
    """The exceeded budget of `agent` and the seconds until it is renewed; None when it may go on.

    Raises BrokerUnavailable: a budget that cannot be read allows nothing.
    """
    if not budget.is_set:
        return None
    found = of_today(budget, views.spend(store, [agent])[agent])
    if found is None or not found.spent:
        return None
    with reachable():
        seconds = store.clock.now_ms() // 1000
    return found, float(DAY_S - seconds % DAY_S)
