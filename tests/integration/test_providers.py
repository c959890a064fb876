"""A provider that fails is left alone, by the whole fleet, and tried again by one call."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.config.sections import BreakerConfig
from fleet.ledger import Ending, Failure, FailureStage, bus, operations, views
from fleet.store import Store, keys
from fleet.store.calls import AgentCall
from fleet.turn import providers
from fleet.turn.providers import Providers
from tasks.model import completion
from tests.fakes.provider import Provider
from tests.fixtures.fleet import CELERY, Fleet, fleet_of
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.marks import LITELLM_WARNINGS

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
        gate.report("acme", "failed", "acme/m: InternalServerError (HTTP 500)")


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
    assert archie.wait_s("acme", CALL_S) == 0
    broken(gem, 1)
    assert 29 < archie.wait_s("acme", CALL_S) <= 30
    assert 29 < gem.wait_s("acme", CALL_S) <= 30
    assert gem.wait_s("other", CALL_S) == 0
    assert told(store) == [("breaker_opened", "acme")]
    assert providers.states(store)["acme"]["state"] == "open"


def test_failures_long_ago_do_not_count(store: Store, archie: Providers) -> None:
    broken(archie, 2)
    pass_time(store, "acme", 61)
    broken(archie, 2)
    assert archie.wait_s("acme", CALL_S) == 0


def test_a_success_between_failures_starts_the_count_anew(archie: Providers) -> None:
    broken(archie, 2)
    archie.report("acme", "ok")
    broken(archie, 2)
    assert archie.wait_s("acme", CALL_S) == 0


def test_one_of_many_tries_it(store: Store, archie: Providers) -> None:
    broken(archie)
    pass_time(store, "acme", 31)
    assert providers.states(store)["acme"]["state"] == "half_open"
    waits: list[float] = []
    callers = [
        threading.Thread(target=lambda: waits.append(archie.wait_s("acme", CALL_S)))
        for _ in range(20)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(waits)[0] == 0
    assert 0 < sorted(waits)[1] <= CALL_S
    archie.report("acme", "ok")
    assert archie.wait_s("acme", CALL_S) == 0
    assert told(store) == [("breaker_opened", "acme"), ("breaker_closed", "acme")]
    assert providers.states(store) == {}


def test_a_trial_that_fails_doubles_the_wait_up_to_five_minutes(
    store: Store, archie: Providers
) -> None:
    broken(archie)
    for wait_s in (60, 120, 240, 300, 300):
        pass_time(store, "acme", 301)
        assert archie.wait_s("acme", CALL_S) == 0
        archie.report("acme", "failed", "again")
        assert wait_s - 1 < archie.wait_s("acme", CALL_S) <= wait_s


def test_a_trial_that_never_ends_makes_room_for_another(store: Store, archie: Providers) -> None:
    broken(archie)
    pass_time(store, "acme", 31)
    assert archie.wait_s("acme", CALL_S) == 0
    assert archie.wait_s("acme", CALL_S) > 0
    pass_time(store, "acme", CALL_S + 1)
    assert archie.wait_s("acme", CALL_S) == 0


def test_late_failures_do_not_lengthen_the_wait(archie: Providers) -> None:
    broken(archie, 30)
    assert archie.wait_s("acme", CALL_S) <= 30


def test_a_wrong_key_opens_it_at_once_and_for_its_agent_alone(
    store: Store, archie: Providers, gem: Providers
) -> None:
    archie.report("acme", "denied", "acme/m: AuthenticationError (HTTP 401)")
    assert archie.wait_s("acme", CALL_S) > 29
    assert gem.wait_s("acme", CALL_S) == 0
    (event,) = bus.tail(store, 10)
    assert (event.type, event.fields["agent"]) == ("breaker_opened", "archie")
    store.run(AgentCall(agent="archie", verb="resume"))
    assert archie.wait_s("acme", CALL_S) == 0


def test_a_provider_that_asks_for_patience_gets_it(archie: Providers) -> None:
    for _ in range(3):
        archie.report("acme", "failed", "HTTP 429", 90.0)
    assert 89 < archie.wait_s("acme", CALL_S) <= 90


class TestHold:
    """Nothing can be tried: the dispatch keeps its place, and its agent waits."""

    HELD = Failure(
        stage=FailureStage.LLM,
        reason="left alone",
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


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as found:
        yield found


class TestCalls:
    pytestmark = LITELLM_WARNINGS

    def ask(self, gate: Providers, provider: Provider, *models: str) -> completion.Reply:
        first, *more = (f"openai/{name}" for name in models)
        return completion.complete(
            model=first,
            fallbacks=more,
            messages=[{"role": "user", "content": "x"}],
            timeout_s=5,
            deadline=time.monotonic() + 20,
            params={"api_base": provider.url, "api_key": "k"},
            gate=gate,
        )

    def test_a_dead_provider_is_not_called_any_more(
        self, archie: Providers, provider: Provider
    ) -> None:
        for _ in range(3):
            with pytest.raises(completion.ModelError):
                self.ask(archie, provider, "e503")
        before = len(provider.requests)
        with pytest.raises(completion.ModelError) as refusal:
            self.ask(archie, provider, "e503")
        assert len(provider.requests) == before
        assert (refusal.value.kind, refusal.value.retryable) == (completion.PROVIDERS_OPEN, True)
        assert 0 < (refusal.value.retry_after_s or 0) <= 30

    @pytest.mark.parametrize("name", ["auth", "forbidden"])
    def test_a_wrong_key_is_not_tried_twice(
        self, archie: Providers, gem: Providers, provider: Provider, name: str
    ) -> None:
        with pytest.raises(completion.ModelError) as refusal:
            self.ask(archie, provider, name)
        assert refusal.value.retryable is False
        with pytest.raises(completion.ModelError) as refusal:
            self.ask(archie, provider, name)
        assert refusal.value.kind == completion.PROVIDERS_OPEN
        assert self.ask(gem, provider, "ok").tier == 1

    def test_a_key_that_stays_wrong_costs_the_one_that_tries_it_nothing(
        self, store: Store, archie: Providers, provider: Provider
    ) -> None:
        with pytest.raises(completion.ModelError):
            self.ask(archie, provider, "auth")
        (place,) = store.client.hkeys(keys.PROVIDERS)
        for wait_s in (60, 120):
            pass_time(store, str(place), 301)
            before = len(provider.requests)
            with pytest.raises(completion.ModelError) as refusal:
                self.ask(archie, provider, "auth")
            assert len(provider.requests) == before + 1
            assert (refusal.value.kind, refusal.value.retryable) == (
                completion.PROVIDERS_OPEN,
                True,
            )
            assert wait_s - 2 < (refusal.value.retry_after_s or 0) <= wait_s
            assert len(refusal.value.attempts) == 1

    @pytest.mark.parametrize("name", ["ctx", "policy", "nomodel", "badrequest"])
    def test_a_refused_request_says_nothing_against_the_provider(
        self, archie: Providers, provider: Provider, name: str
    ) -> None:
        for _ in range(4):
            with pytest.raises(completion.ModelError):
                self.ask(archie, provider, name)
        assert self.ask(archie, provider, "ok").tier == 1


@pytest.fixture
def fleet(tmp_path: Any, provider: Provider) -> Iterator[Fleet]:
    agent = {
        "runner": "llm",
        "model": "openai/flaky3",
        "params": {"api_base": provider.url, "api_key": "k"},
        "retry": {"attempts": 2, "backoff_s": 0, "min_age_s": 0},
    }
    with fleet_of(tmp_path, {"archie": agent}) as fleet:
        yield fleet


@pytest.mark.timeout(120)
def test_work_waits_for_a_provider_that_comes_back(fleet: Fleet, provider: Provider) -> None:
    """Its first three requests fail: that opens it; what waits then loses no attempt."""
    fleet.start(
        "archie",
        *(str(CELERY), "-A", "fleet", "worker", "-Q", "agent.archie", "-c", "1", "-n", "archie@%h"),
        *("-l", "INFO", "--without-mingle", "--without-gossip"),
        FLEET_BREAKER__FAILURE_THRESHOLD="3",
        FLEET_BREAKER__RESET_TIMEOUT_S="2",
    )
    shared = fleet.shared()
    fleet.start("beat", str(CELERY), "-A", "fleet", "beat", "-l", "WARNING")
    first, second = fleet.send("archie", "one"), fleet.send("archie", "two")
    fleet.wait_state(first, "dead", 60)
    third = fleet.send("archie", "three")
    assert shared.alive
    record = fleet.wait_state(second, "completed", 60)
    fleet.wait_state(third, "completed", 30)
    assert provider.count("flaky3") == 5
    assert int(record["attempt"]) > 2
    kinds = [event.type for event in fleet.books.bus()]
    assert kinds.count("breaker_opened") == kinds.count("breaker_closed") == 1
