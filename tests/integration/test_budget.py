"""Spending stops at the budget, before the next call, and operators know in time."""

from collections.abc import Iterator
from typing import Any

import pytest

from fleet import keys
from fleet.alerts.conditions import current
from fleet.budget import standing, used_up
from fleet.sections import Budget
from fleet.store import Store
from tests.fakes.provider import Provider
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.marks import LITELLM_WARNINGS

DAY_S = 86400


def spent(store: Store, agent: str, usd: float, tokens: int, days_ago: int = 0) -> None:
    """As if turns of that day had cost so much."""
    seconds, _ = store.client.time()
    day = keys.spend(int(seconds) // DAY_S - days_ago)
    store.client.hset(day, mapping={f"{agent}|usd": usd, f"{agent}|tokens_in": tokens})
    store.client.pexpire(day, 1000 * DAY_S)


@pytest.mark.parametrize(
    ("budget", "usd", "tokens", "part"),
    [
        (Budget(), 99.0, 10**9, None),
        (Budget(usd_per_day=5.0), 1.0, 10**9, 0.2),
        (Budget(tokens_per_day=1000), 99.0, 900, 0.9),
        (Budget(usd_per_day=5.0, tokens_per_day=1000), 4.5, 100, 0.9),
        (Budget(usd_per_day=5.0), 6.0, 0, 1.2),
    ],
)
def test_the_nearest_bound_counts(
    budget: Budget, usd: float, tokens: int, part: float | None
) -> None:
    found = standing(budget, usd, tokens)
    assert (found and found.part) == (part and pytest.approx(part))


def test_what_the_running_turn_has_cost_is_part_of_it(store: Store) -> None:
    budget = Budget(tokens_per_day=1000)
    spent(store, "a", 0.0, 900)
    assert used_up(store, "a", budget, 0.0, 50) is None
    found = used_up(store, "a", budget, 0.0, 100)
    assert found is not None
    assert found[0].of == "1000 of 1000 tokens a day"
    assert 0 < found[1] <= DAY_S


def test_yesterday_and_other_agents_do_not_count(store: Store) -> None:
    budget = Budget(usd_per_day=1.0)
    spent(store, "a", 5.0, 0, days_ago=1)
    spent(store, "b", 5.0, 0)
    assert used_up(store, "a", budget, 0.0, 0) is None


@pytest.mark.parametrize(("usd", "count"), [(3.9, None), (4.0, 80), (5.0, 100)])
def test_operators_are_told_at_four_fifths_and_at_the_end(usd: float, count: int | None) -> None:
    found = standing(Budget(usd_per_day=5.0), usd, 0)
    assert found is not None
    told = current({}, {}, 1.0, {}, budgets={"a": found})
    assert [condition.count for condition in told] == ([count] if count else [])


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
def fleet(tmp_path: Any, provider: Provider) -> Iterator[Fleet]:
    agent = {
        "runner": "llm",
        "model": "openai/ok",
        "params": {"api_base": provider.url, "api_key": "k"},
        "budget": {"tokens_per_day": 1, "usd_per_day": 5.0},
        "retry": {"attempts": 3, "deadline_s": 2 * DAY_S},
    }
    with fleet_of(tmp_path, {"archie": agent}) as fleet:
        fleet.ready("archie")
        yield fleet


class TestFleet:
    pytestmark = LITELLM_WARNINGS

    def test_the_call_after_the_budget_is_not_made(self, fleet: Fleet, provider: Provider) -> None:
        fleet.wait_state(fleet.send("archie", "one"), "completed")
        second = fleet.send("archie", "two")
        record = fleet.wait_state(second, "retrying")
        assert record["stage"] == "budget"
        assert "1 tokens a day" in record["error"]
        assert len(provider.requests) == 1
        (failed,) = fleet.books.bus("dispatch_failed")
        seconds, _ = fleet.books.store.client.time()
        midnight = (int(seconds) // DAY_S + 1) * DAY_S
        assert failed.fields["retry_at"] == pytest.approx(midnight, abs=60)
        (alert,) = [e for e in fleet.books.bus("alert") if e.fields["name"] == "unpriced_model"]
        assert "openai/ok has no price" in alert.fields["reason"]
