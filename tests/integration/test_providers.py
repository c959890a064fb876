"""A provider that fails is left alone, by the whole fleet, and tried again by one call."""

import json
import threading
from typing import Any

import pytest

from fleet.config.sections import BreakerConfig
from fleet.ledger import Ending, Failure, FailureStage, bus, operations, views
from fleet.store import Store, keys
from fleet.store.calls import AgentCall
from fleet.turn import providers
from fleet.turn.providers import Providers
from tests.fixtures.ledger import Books, settings_for

SETTINGS = BreakerConfig(failure_threshold=3, reset_timeout_s=30)
CALL_S = 10.0


@pytest.fixture
def archie(store: Store) -> Providers:
    return Providers(lambda: store, SETTINGS, "archie")


@pytest.fixture
def gem(store: Store) -> Providers:
    return Providers(lambda: store, SETTINGS, "gem")


def broken(gate: Providers, times: int = 3) -> None:
    for _ in range(times):
        gate.report("acme", "", "failed", "acme/m: InternalServerError (HTTP 500)")


def pass_time(store: Store, name: str, seconds: float) -> None:
    """As if so much more time had passed for one breaker."""
    breaker = json.loads(str(store.client.hget(keys.PROVIDERS, name)))
    for moment in ("till", "probe", "since"):
        breaker[moment] -= seconds * 1000
    store.client.hset(keys.PROVIDERS, name, json.dumps(breaker))


def told(store: Store) -> list[tuple[str, str]]:
    return [(event.type, event.fields["name"]) for event in bus.tail(store, 100)]


def test_it_opens_for_all_after_several_failures(
    store: Store, archie: Providers, gem: Providers
) -> None:
    broken(archie, 2)
    assert archie.wait_s("acme", "", CALL_S) == 0
    broken(gem, 1)
    assert 29 < archie.wait_s("acme", "", CALL_S) <= 30
    assert 29 < gem.wait_s("acme", "", CALL_S) <= 30
    assert gem.wait_s("other", "", CALL_S) == 0
    assert told(store) == [("breaker_opened", "acme")]
    assert providers.states(store)["acme"]["state"] == "open"


def test_failures_long_ago_do_not_count(store: Store, archie: Providers) -> None:
    broken(archie, 2)
    pass_time(store, "acme", 61)
    broken(archie, 2)
    assert archie.wait_s("acme", "", CALL_S) == 0


def test_a_success_between_failures_starts_the_count_anew(archie: Providers) -> None:
    broken(archie, 2)
    archie.report("acme", "", "ok")
    broken(archie, 2)
    assert archie.wait_s("acme", "", CALL_S) == 0


def test_one_of_many_tries_it(store: Store, archie: Providers) -> None:
    broken(archie)
    pass_time(store, "acme", 31)
    assert providers.states(store)["acme"]["state"] == "half_open"
    waits: list[float] = []
    callers = [
        threading.Thread(target=lambda: waits.append(archie.wait_s("acme", "", CALL_S)))
        for _ in range(20)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(waits)[0] == 0
    assert 0 < sorted(waits)[1] <= CALL_S
    archie.report("acme", "", "ok")
    assert archie.wait_s("acme", "", CALL_S) == 0
    assert told(store) == [("breaker_opened", "acme"), ("breaker_closed", "acme")]
    assert providers.states(store) == {}


def test_a_trial_that_fails_doubles_the_wait_up_to_five_minutes(
    store: Store, archie: Providers
) -> None:
    broken(archie)
    for wait_s in (60, 120, 240, 300, 300):
        pass_time(store, "acme", 301)
        assert archie.wait_s("acme", "", CALL_S) == 0
        archie.report("acme", "", "failed", "again")
        assert wait_s - 1 < archie.wait_s("acme", "", CALL_S) <= wait_s


def test_a_trial_that_never_ends_makes_room_for_another(store: Store, archie: Providers) -> None:
    broken(archie)
    pass_time(store, "acme", 31)
    assert archie.wait_s("acme", "", CALL_S) == 0
    assert archie.wait_s("acme", "", CALL_S) > 0
    pass_time(store, "acme", CALL_S + 1)
    assert archie.wait_s("acme", "", CALL_S) == 0


def test_late_failures_do_not_lengthen_the_wait(archie: Providers) -> None:
    broken(archie, 30)
    assert archie.wait_s("acme", "", CALL_S) <= 30


def test_a_refused_key_opens_at_once_for_all_who_use_it_and_for_no_other(
    store: Store, archie: Providers, gem: Providers
) -> None:
    archie.report("acme", "5f00", "denied", "acme/m: AuthenticationError (HTTP 401)")
    assert archie.wait_s("acme", "5f00", CALL_S) > 29
    assert gem.wait_s("acme", "5f00", CALL_S) > 29
    assert gem.wait_s("acme", "77aa", CALL_S) == 0
    assert archie.wait_s("other", "5f00", CALL_S) == 0
    (event,) = bus.tail(store, 10)
    assert (event.type, event.fields["name"]) == ("breaker_opened", "acme key 5f00")


def test_a_key_that_only_its_provider_knows_is_the_agents_own(
    archie: Providers, gem: Providers
) -> None:
    archie.report("acme", "", "denied", "HTTP 401")
    assert archie.wait_s("acme", "", CALL_S) > 29
    assert gem.wait_s("acme", "", CALL_S) == 0


@pytest.mark.parametrize(("outcome", "times"), [("failed", 3), ("denied", 1)])
def test_resume_clears_whatever_had_stopped_the_agent(
    store: Store, archie: Providers, gem: Providers, outcome: Any, times: int
) -> None:
    for _ in range(times):
        archie.report("acme", "5f00", outcome, "HTTP 4xx")
    assert gem.wait_s("acme", "5f00", CALL_S) > 0
    assert store.run(AgentCall(agent="gem", verb="resume")) == 1
    assert archie.wait_s("acme", "5f00", CALL_S) == 0
    assert [kind for kind, _ in told(store)] == ["breaker_opened", "breaker_closed"]
    archie.report("other", "5f00", "denied", "HTTP 401")
    assert store.run(AgentCall(agent="gem", verb="resume")) == 0


def test_a_key_that_is_not_used_any_more_is_forgotten(store: Store, archie: Providers) -> None:
    archie.report("acme", "old", "denied", "HTTP 401")
    pass_time(store, "acme key old", 2 * 3600)
    assert providers.states(store) == {}
    archie.report("acme", "new", "failed", "HTTP 500")
    assert store.client.hkeys(keys.PROVIDERS) == ["acme"]


def test_a_provider_that_asks_for_patience_gets_it(archie: Providers) -> None:
    for _ in range(3):
        archie.report("acme", "", "limited", "HTTP 429", 90.0)
    assert 89 < archie.wait_s("acme", "", CALL_S) <= 90


class TestHold:
    """Nothing can be tried: the dispatch keeps its place, and its agent waits."""

    HELD = Failure(
        stage=FailureStage.LLM,
        reason="providers failed",
        retryable=True,
        retry_after_s=30.0,
        kind="X",
        defer=True,
    )

    @pytest.fixture
    def books(self, store: Store) -> Books:
        return Books(store, settings_for("a", "b", retry={"attempts": 1, "min_age_s": 0}))

    def held(self, books: Books) -> tuple[Any, str]:
        lease = books.held()
        (first,) = books.accept("a")
        claim = books.claimed(lease)
        assert books.ledger.commit(claim, Ending(failure=self.HELD)) == "queued"
        assert books.ledger.commit(claim, Ending(failure=self.HELD)) == "queued"
        return lease, first

    def test_it_uses_up_no_attempt_and_is_the_next(self, books: Books) -> None:
        lease, first = self.held(books)
        books.accept("a", priority=9)
        assert books.claim(lease) is None
        record = views.get(books.store, first)
        assert record is not None
        assert "providers failed" in record["waiting_for"]
        books.store.client.hset(keys.agent("a"), "hold_ms", 1)
        claim = books.claimed(lease)
        assert claim.dispatch_id == first
        assert books.fail(claim) == "dead"

    def test_resume_tries_at_once(self, books: Books) -> None:
        lease, first = self.held(books)
        operations.resume(books.ledger, "a")
        assert books.claimed(lease).dispatch_id == first

    def test_beat_rings_when_the_time_has_come(self, books: Books) -> None:
        self.held(books)
        books.store.client.delete(keys.queue("a"))
        books.reclaim()
        assert books.wakeups("a") == 0
        books.store.client.hset(keys.agent("a"), "hold_ms", 1)
        books.reclaim()
        assert books.wakeups("a") == 1
