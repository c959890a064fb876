"""Spending stops at the budget, before the next call, and operators know in time."""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from fleet.config.agents import AgentConfig, BudgetConfig
from fleet.formats.money import money
from fleet.ledger import Cost, Failure, FailureStage, operations, views
from fleet.ops import agents
from fleet.ops.alerts.conditions import current
from fleet.ops.alerts.watch import Alerter
from fleet.store import Store, keys
from fleet.store.calls import AgentCall
from fleet.turn.budget import current_budget, used_up
from fleet.worker.lease import Lease
from tasks.model import prices
from tests.fakes.provider import Provider
from tests.fixtures.fleet import Fleet, Tables, fleet_of
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.marks import LITELLM_WARNINGS
from tests.fixtures.processes import wait_until

DAY_S = 86400
#: What the fake provider says that a call has cost.
CALL_TOKENS = 19


OVER = Failure(
    stage=FailureStage.BUDGET,
    reason="the budget is used up: $5.00 of $5.00 a day",
    retryable=True,
    retry_after_s=3600,
    defer=True,
)


def stopped(store: Store, **retry: float) -> tuple[Books, Lease, str]:
    """An agent that its budget has stopped in the turn of a dispatch."""
    books = Books(store, settings_for("a", retry=retry))
    lease = books.held()
    (dispatch_id,) = books.accept()
    books.fail(books.claimed(lease), OVER)
    assert books.claim(lease) is None
    return books, lease, dispatch_id


def test_resume_lets_it_go_on_at_once(store: Store) -> None:
    books, lease, dispatch_id = stopped(store)
    assert operations.resume(books.ledger, "a")
    assert books.claimed(lease).dispatch_id == dispatch_id


def test_a_larger_budget_lets_it_go_on_at_once_and_nothing_else(store: Store) -> None:
    books, lease, dispatch_id = stopped(store)
    operations.pause(books.ledger, "a")
    store.run(AgentCall(agent="a", verb="fund"))
    assert books.claim(lease) is None  # a person has paused it
    operations.resume(books.ledger, "a")
    assert books.claimed(lease).dispatch_id == dispatch_id


def test_a_deadline_before_midnight_ends_with_the_budget_as_its_reason(store: Store) -> None:
    books, _, first = stopped(store, deadline_s=60)
    (second,) = books.accept()
    why = views.get(store, second)
    assert why is not None
    assert why["waiting_for"] == f"its agent to go on: {OVER.reason}"
    for one in (first, second):
        store.client.zadd("fleet:deadlines", {one: 1})
    books.reclaim()
    for one in (first, second):
        assert books.ends(one) == ["dispatch_expired"]
        assert OVER.reason in books.record(one)["error"]
    assert all(OVER.reason in end.fields["reason"] for end in books.bus("dispatch_expired"))


@pytest.mark.parametrize(
    ("usd", "words"), [(0.0, "$0.00"), (1.2, "$1.20"), (0.0042, "$0.0042"), (1234.5, "$1,234.50")]
)
def test_amounts_are_words_that_people_read(usd: float, words: str) -> None:
    assert money(usd) == words


def test_a_model_without_a_price_is_told_by_its_agent() -> None:
    budget = BudgetConfig(usd_per_day=5.0)
    agent = AgentConfig(model="openai/script", fallbacks=["openai/gpt-4o", "echo/brief"])
    assert prices.unpriced(agent) == []
    limited = agent.model_copy(update={"budget": budget})
    assert prices.unpriced(limited) == ["openai/script"]
    own = limited.model_copy(update={"params": {"input_cost_per_token": 1e-6}})
    assert prices.unpriced(own) == []


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
    assert found[0].of == "1,000 of 1,000 tokens a day"
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
    client.hset(keys.agent("archie"), "hold_ms", 1)
    client.zadd("fleet:rests", {"archie": 1}, xx=True)  # of an agent in a pool
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
        wait_until(lambda: fleet.books.record(dispatch_id).get("stage") == "budget")
        record = fleet.wait_state(dispatch_id, "queued")
        assert f"{2 * CALL_TOKENS} tokens a day" in record["error"]
        assert len(provider.requests) == 2
        (row,) = agents.rows(fleet.books.store, fleet.settings, ["archie"])
        assert (row["status"], row["hold_reason"]) == ("budget", record["error"])
        seconds, _ = fleet.books.store.client.time()
        assert row["hold_s"] == pytest.approx(DAY_S - int(seconds) % DAY_S, abs=60)
        for day in (2, 3):
            next_day(fleet)
            wait_until(lambda day=day: len(provider.requests) == min(2 * day, 5))  # type: ignore[misc]
            fleet.wait_state(dispatch_id, "queued" if day == 2 else "completed")
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
            *("archie", "90% of its budget is used up: $4.50 of $5.00 a day"),
        )

    def test_a_worker_with_a_larger_budget_goes_on_at_once(self, fleet: Fleet) -> None:
        next_day(fleet)
        spent(fleet.books.store, "archie", 0.0, 2 * CALL_TOKENS)
        dispatch_id = fleet.send("archie", json.dumps([]))
        wait_until(lambda: fleet.books.record(dispatch_id).get("stage") == "budget")
        fleet.processes[-1].signal(signal.SIGTERM)
        assert fleet.processes[-1].wait() == 0
        path = fleet.folder / "fleet.toml"
        larger = path.read_text().replace(f"= {2 * CALL_TOKENS}", f"= {9 * CALL_TOKENS}")
        path.write_text(larger)
        fleet.ready("archie")
        fleet.wait_state(dispatch_id, "completed")
