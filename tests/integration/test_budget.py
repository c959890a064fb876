"""Spending stops at the budget, before the next call, and operators know in time."""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from fleet.config.agents import BudgetConfig
from fleet.ledger import Cost, views
from fleet.ops.alerts.conditions import current
from fleet.ops.alerts.watch import Alerter
from fleet.store import Store, keys
from fleet.turn.budget import current_budget, used_up
from tests.fakes.provider import Provider
from tests.fixtures.fleet import Fleet, Tables, fleet_of
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.marks import LITELLM_WARNINGS
from tests.fixtures.processes import wait_until

DAY_S = 86400
#: What the fake provider says that a call has cost.
CALL_TOKENS = 19


def spent(store: Store, agent: str, usd: float, tokens: int, days_ago: int = 0) -> None:
    """As if turns of that day had cost so much."""
    seconds, _ = store.client.time()
    day = keys.spend(int(seconds) // DAY_S - days_ago)
    store.client.hset(day, mapping={f"{agent}|usd": usd, f"{agent}|tokens_in": tokens})
    store.client.pexpire(day, 1000 * DAY_S)


@pytest.mark.parametrize(
    ("budget", "usd", "tokens", "part"),
    [
        (BudgetConfig(), 99.0, 10**9, None),
        (BudgetConfig(usd_per_day=5.0), 1.0, 10**9, 0.2),
        (BudgetConfig(tokens_per_day=1000), 99.0, 900, 0.9),
        (BudgetConfig(usd_per_day=5.0, tokens_per_day=1000), 4.5, 100, 0.9),
        (BudgetConfig(usd_per_day=5.0), 6.0, 0, 1.2),
    ],
)
def test_the_nearest_bound_counts(
    budget: BudgetConfig, usd: float, tokens: int, part: float | None
) -> None:
    found = current_budget(budget, usd, tokens)
    assert (found and found.part) == (part and pytest.approx(part))


def test_what_the_running_turn_has_cost_is_part_of_it(store: Store) -> None:
    budget = BudgetConfig(tokens_per_day=1000)
    spent(store, "a", 0.0, 900)
    books = Books(store, settings_for("a"))
    books.accept()
    claim = books.claimed(books.held())
    books.ledger.step(claim, "1", "{}", Cost(tokens_in=50))
    assert used_up(store, "a", budget) is None
    for _ in range(2):  # the second time because the reply was lost
        books.ledger.step(claim, "2", '{"more": 1}', Cost(tokens_in=30, tokens_out=20))
    found = used_up(store, "a", budget)
    assert found is not None
    assert found[0].of == "1000 of 1000 tokens a day"
    assert 0 < found[1] <= DAY_S


def test_yesterday_and_other_agents_do_not_count(store: Store) -> None:
    budget = BudgetConfig(usd_per_day=1.0)
    spent(store, "a", 5.0, 0, days_ago=1)
    spent(store, "b", 5.0, 0)
    assert used_up(store, "a", budget) is None


@pytest.mark.parametrize(("usd", "count"), [(3.9, None), (4.0, 80), (5.0, 100)])
def test_operators_are_told_at_four_fifths_and_at_the_end(usd: float, count: int | None) -> None:
    found = current_budget(BudgetConfig(usd_per_day=5.0), usd, 0)
    assert found is not None
    told = current({}, {}, 1.0, {}, budgets={"a": found})
    assert [condition.count for condition in told] == ([count] if count else [])


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Fleet]:
    agent = {
        "runner": "llm",
        "model": "openai/script",
        "params": {"api_base": provider.url, "api_key": "k"},
        "tools": ["kit"],
        "budget": {"tokens_per_day": 2 * CALL_TOKENS, "usd_per_day": 5.0},
        "retry": {"attempts": 1, "min_age_s": 0, "deadline_s": 9 * DAY_S},
    }
    sections: Tables = {"tools.kit": {"python": "tests.fixtures.tools:kit"}}
    folder = tmp_path_factory.mktemp("fleet")
    with fleet_of(folder, {"archie": agent}, sections=sections) as fleet:
        fleet.ready("archie")
        yield fleet


def next_day(fleet: Fleet) -> None:
    """As if midnight had passed: the counters of today are yesterday's, and what waits is due."""
    client = fleet.books.store.client
    seconds, _ = client.time()
    today = int(seconds) // DAY_S
    if client.exists(keys.spend(today)):
        client.rename(keys.spend(today), keys.spend(today - 1))
    for dispatch_id in client.zrange("fleet:retry", 0, -1):
        client.zadd("fleet:retry", {str(dispatch_id): 0})
    fleet.books.reclaim()


def tokens(fleet: Fleet) -> int:
    row = views.spend(fleet.books.store, ["archie"])["archie"]
    return int(row["tokens_in"] + row["tokens_out"])


class TestFleet:
    pytestmark = LITELLM_WARNINGS

    def test_a_turn_stops_at_the_budget_and_goes_on_the_next_day(
        self, fleet: Fleet, provider: Provider
    ) -> None:
        """Four rounds and an answer are five calls; a day has two."""
        script = [[["read_note", {"name": str(number)}]] for number in range(4)]
        dispatch_id = fleet.send("archie", json.dumps(script))
        record = fleet.wait_state(dispatch_id, "retrying")
        assert record["stage"] == "budget"
        assert f"{2 * CALL_TOKENS} tokens a day" in record["error"]
        assert len(provider.requests) == 2
        (failed,) = fleet.books.bus("dispatch_failed")
        seconds, _ = fleet.books.store.client.time()
        midnight = (int(seconds) // DAY_S + 1) * DAY_S
        assert failed.fields["retry_at"] == pytest.approx(midnight, abs=60)
        for day in (2, 3):
            next_day(fleet)
            wait_until(lambda day=day: len(provider.requests) == min(2 * day, 5))  # type: ignore[misc]
            fleet.wait_state(dispatch_id, "retrying" if day == 2 else "completed")
        # Each call was made once, and counted on the day that it was made.
        assert [len(request.body["messages"]) for request in provider.requests] == [1, 3, 5, 7, 9]
        assert tokens(fleet) == CALL_TOKENS

    def test_what_a_turn_that_dies_has_cost_counts(self, fleet: Fleet) -> None:
        next_day(fleet)
        before = tokens(fleet)
        dispatch_id = fleet.send("archie", json.dumps([[["write_gate", {"name": "never"}]]]))
        for attempt in ("1", "2", "3"):
            wait_until(lambda a=attempt: fleet.books.record(dispatch_id)["attempt"] == a)  # type: ignore[misc]
            wait_until(lambda: len(fleet.books.ledger.steps(dispatch_id)) == 1)
            assert tokens(fleet) == before + CALL_TOKENS  # while it runs
            (child,) = fleet.processes[0].children()
            os.kill(child, signal.SIGKILL)
        fleet.wait_state(dispatch_id, "dead")
        assert tokens(fleet) == before + CALL_TOKENS
        assert float(fleet.books.record(dispatch_id)["tokens_in"]) > 0
        # Each of three processes has met a model without a price; that was said once.
        (alert,) = [e for e in fleet.books.bus("alert") if e.fields["name"] == "unpriced_model"]
        assert "openai/script has no price" in alert.fields["reason"]
        # Operators are told in time.
        alerter = Alerter(lambda: fleet.books.store, fleet.settings)
        spent(fleet.books.store, "archie", 4.5, 0)
        fleet.books.store.client.delete(keys.turn("alerts"))
        alerter.check()
        (alert,) = [e for e in fleet.books.bus("alert") if e.fields["name"] == "budget"]
        assert (alert.fields["agent"], alert.fields["reason"]) == (
            *("archie", "90% of its budget is used up: 4.5000 of 5 dollars a day"),
        )
