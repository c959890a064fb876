"""Calls of a provider that fails, refuses or asks for patience: by one process, and by workers."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.ledger import operations
from fleet.store import Store, keys
from fleet.turn.providers import Providers
from tasks.model import completion
from tasks.model.reply import ModelError, Reply
from tests.fakes.provider import Provider
from tests.fixtures.fleet import CELERY, Fleet, fleet_of
from tests.fixtures.marks import LITELLM_WARNINGS
from tests.fixtures.processes import wait_until
from tests.integration.test_providers import archie, gem, pass_time

__all__ = ["archie", "gem"]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as found:
        yield found


class TestCalls:
    pytestmark = LITELLM_WARNINGS

    def ask(self, gate: Providers, provider: Provider, *models: str) -> Reply:
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
            with pytest.raises(ModelError):
                self.ask(archie, provider, "e503")
        before = len(provider.requests)
        with pytest.raises(ModelError) as refusal:
            self.ask(archie, provider, "e503")
        assert len(provider.requests) == before
        assert (refusal.value.kind, refusal.value.retryable) == (completion.PROVIDERS_OPEN, True)
        assert 0 < (refusal.value.retry_after_s or 0) <= 30

    @pytest.mark.parametrize("name", ["auth", "forbidden"])
    def test_a_wrong_key_is_not_tried_twice(
        self, archie: Providers, gem: Providers, provider: Provider, name: str
    ) -> None:
        with pytest.raises(ModelError) as refusal:
            self.ask(archie, provider, name)
        assert refusal.value.retryable is False
        with pytest.raises(ModelError) as refusal:
            self.ask(archie, provider, name)
        assert refusal.value.kind == completion.PROVIDERS_OPEN
        assert self.ask(gem, provider, "ok").tier == 1

    @pytest.mark.parametrize("fault", ["e503", "r429-90", "auth", "forbidden", "drop"])
    def test_a_model_that_fails_does_not_close_its_neighbour(
        self, archie: Providers, provider: Provider, fault: str
    ) -> None:
        """Both have one address and one key, as behind a proxy or at one vendor."""
        before = provider.count(fault)
        for _ in range(5):
            assert self.ask(archie, provider, fault, "ok").tier == 2
        assert 1 <= provider.count(fault) - before <= 3

    def test_a_provider_that_asks_for_two_days_is_asked_again_in_an_hour(
        self, store: Store, archie: Providers, gem: Providers, provider: Provider
    ) -> None:
        name = "limit1-172800"
        for gate in (archie, archie, gem):
            with pytest.raises(ModelError) as refusal:
                self.ask(gate, provider, name)
            assert refusal.value.kind == completion.PROVIDERS_OPEN
            assert 3590 < (refusal.value.retry_after_s or 0) <= 3600
        assert provider.count(name) == 1
        (place,) = store.client.hkeys(keys.PROVIDERS)
        pass_time(store, str(place), 3601)
        assert self.ask(gem, provider, name).tier == 1

    def test_the_model_that_may_answer_later_decides(
        self, archie: Providers, provider: Provider
    ) -> None:
        for _ in range(2):
            with pytest.raises(ModelError) as refusal:
                self.ask(archie, provider, "r429-120", "nomodel")
            assert (refusal.value.kind, refusal.value.retryable) == (
                completion.PROVIDERS_OPEN,
                True,
            )

    def test_a_short_wait_opens_nothing(self, archie: Providers, provider: Provider) -> None:
        with pytest.raises(ModelError) as refusal:
            self.ask(archie, provider, "r429-4")
        assert (refusal.value.kind, refusal.value.retry_after_s) == ("RateLimitError", 4)
        with pytest.raises(ModelError) as refusal:
            self.ask(archie, provider, "r429-4")
        assert refusal.value.kind == "RateLimitError"

    def test_a_key_that_stays_wrong_costs_the_one_that_tries_it_nothing(
        self, store: Store, archie: Providers, provider: Provider
    ) -> None:
        with pytest.raises(ModelError):
            self.ask(archie, provider, "auth")
        (place,) = store.client.hkeys(keys.PROVIDERS)
        for wait_s in (60, 120):
            pass_time(store, str(place), 301)
            before = len(provider.requests)
            with pytest.raises(ModelError) as refusal:
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
            with pytest.raises(ModelError):
                self.ask(archie, provider, name)
        assert self.ask(archie, provider, "ok").tier == 1


WORKER = (
    *(str(CELERY), "-A", "fleet", "worker", "-Q", "agent.archie", "-c", "1", "-n", "archie@%h"),
    *("-l", "INFO", "--without-mingle", "--without-gossip"),
)


@pytest.fixture
def fleet(tmp_path: Any, provider: Provider, request: Any) -> Iterator[Fleet]:
    agent = {
        "runner": "llm",
        "model": f"openai/{getattr(request, 'param', 'flaky3')}",
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
        *WORKER,
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


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fleet", ["limit1-172900"], indirect=True)
def test_a_wait_of_days_kills_no_event_and_resume_ends_it(fleet: Fleet, provider: Provider) -> None:
    fleet.start("archie", *WORKER)
    sent = [fleet.send("archie", f"event {n}") for n in range(5)]
    wait_until(lambda: "breaker_opened" in [event.type for event in fleet.books.bus()], 60)
    first = fleet.wait_state(sent[0], "queued", 30)
    assert int(first["attempt"]) - int(first["attempt_base"]) == 0
    hold_ms = float(str(fleet.books.store.client.hget(keys.agent("archie"), "hold_ms")))
    assert hold_ms - time.time() * 1000 <= 3600 * 1000
    operations.resume(fleet.books.ledger, "archie")
    for dispatch_id in sent:
        fleet.wait_state(dispatch_id, "completed", 60)
    kinds = [event.type for event in fleet.books.bus()]
    assert kinds.count("breaker_opened") == kinds.count("breaker_closed") == 1
    assert "dispatch_dead" not in kinds


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fleet", ["limit4-1"], indirect=True)
def test_a_short_wait_uses_up_no_attempt(fleet: Fleet, provider: Provider) -> None:
    """More requests are refused than there are attempts, and the breaker stays closed."""
    fleet.start("archie", *WORKER, FLEET_BREAKER__FAILURE_THRESHOLD="50")
    fleet.start("beat", str(CELERY), "-A", "fleet", "beat", "-l", "WARNING")
    fleet.shared()
    fleet.wait_state(fleet.send("archie", "one"), "completed", 60)
    assert provider.count("limit4-1") == 5
