"""Metrics of Prometheus: counted in the move they count, once, and true after any restart."""

import re
from importlib import resources
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from fleet.config.sections import BreakerConfig
from fleet.ledger import Ending, Failure, FailureStage, operations
from fleet.ops import metrics
from fleet.ops.metrics import TURN_BOUNDS_MS, Clients
from fleet.store import Store
from fleet.turn.providers import Providers
from tests.fixtures.ledger import FOR_GOOD, OUTAGE, Books, Twice, settings_for

SCRIPTS = resources.files("fleet.store") / "scripts"


@pytest.fixture
def books(store: Store) -> Books:
    """Every call is made twice, as when its answer was lost: nothing may be counted twice."""
    retry = {"attempts": 2, "backoff_s": 0, "min_age_s": 0}
    return Books(Twice(store.client, 1000, wakes=True), settings_for("a", "b", retry=retry))


class Scrape:
    """One scrape, parsed as Prometheus does."""

    def __init__(self, books: Books, *agents: str) -> None:
        self.reading = metrics.read(books.store, agents or ("a", "b"))
        body, self.media_type = metrics.render(self.reading, Clients(), "text/plain")
        families = text_string_to_metric_families(body.decode())
        self.families: dict[str, Metric] = {family.name: family for family in families}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        (found,) = [
            sample.value
            for sample in self._samples
            if sample.name == f"fleet_{name}" and labels.items() <= sample.labels.items()
        ]
        return found

    def labels(self, name: str) -> set[str]:
        return {one.labels[name] for one in self._samples if name in one.labels}


def fail(books: Books, failure: Failure, **facts: Any) -> None:
    lease = books.held()
    claim = books.claimed(lease)
    books.ledger.commit(claim, Ending(failure=failure, facts=facts))
    lease.release()


def test_an_empty_store_has_every_metric_at_zero(books: Books) -> None:
    scrape = Scrape(books)
    assert scrape("up") == 1
    for name, labels in (
        ("accepted_total", {}),
        ("outcomes_total", {"agent": "a", "outcome": "completed"}),
        ("failures_total", {"agent": "b", "stage": "llm"}),
        ("dispatches", {"agent": "a", "state": "queued"}),
        ("turn_seconds_count", {"agent": "a"}),
        ("oldest_seconds", {"agent": "a"}),
        ("agent_online", {"agent": "a"}),
    ):
        assert scrape(name, **labels) == 0


def test_a_turn_is_counted_once_with_what_it_cost(books: Books) -> None:
    lease = books.held()
    books.accept()
    claim = books.claimed(lease)
    running = Scrape(books)
    assert running("dispatches", agent="a", state="active") == 1
    assert running("agent_online", agent="a") == 1
    assert running("attempts_total", agent="a") == 1
    facts: dict[str, Any] = {"tokens_in": 11, "tokens_out": 7, "usd": "0.012345", "tier": 2}
    books.ledger.commit(claim, Ending(answer="done", facts=facts))
    scrape = Scrape(books)
    assert scrape("outcomes_total", agent="a", outcome="completed") == 1
    assert scrape("tokens_total", agent="a", direction="in") == 11
    assert scrape("tokens_total", agent="a", direction="out") == 7
    assert scrape("dollars_total", agent="a") == pytest.approx(0.012345)
    assert scrape("turns_by_tier_total", agent="a", tier="2") == 1
    assert scrape("turns_by_tier_total", agent="a", tier="1") == 0
    assert scrape("turn_seconds_count", agent="a") == 1
    assert scrape("turn_seconds_bucket", agent="a", le="+Inf") == 1
    assert scrape("turn_seconds_bucket", agent="a", le="1800.0") == 1
    assert scrape("lease_changes_total", agent="a") == 1
    assert scrape("outcomes_total", agent="b", outcome="completed") == 0


def test_journalled_steps_are_not_paid_again_by_a_later_attempt(books: Books) -> None:
    books.accept()
    fail(books, OUTAGE, tokens_in=10, usd="0.5")
    books.reclaim()
    fail(books, OUTAGE, tokens_in=0, usd="0")
    books.accept()
    assert Scrape(books)("tokens_total", agent="a", direction="in") == 10
    (dead,) = [e.fields["dispatch_id"] for e in books.bus("dispatch_dead")]
    operations.replay(books.ledger, books.settings, str(dead))
    lease = books.held()
    claim = books.claimed(lease)
    assert claim.dispatch_id == dead
    books.ledger.commit(claim, Ending(answer="x", facts={"tokens_in": 14, "usd": "0.75"}))
    scrape = Scrape(books)
    assert scrape("tokens_total", agent="a", direction="in") == 14
    assert scrape("dollars_total", agent="a") == 0.75
    assert scrape("failures_total", agent="a", stage="llm") == 2
    assert scrape("outcomes_total", agent="a", outcome="dead") == 1
    assert scrape("outcomes_total", agent="a", outcome="completed") == 1
    assert scrape("attempts_total", agent="a") == 3


def test_every_way_out_is_counted(books: Books) -> None:
    waiting, running = (books.accept()[0] for _ in range(2))
    operations.cancel(books.ledger, books.settings, waiting, "enough")
    lease = books.held()
    for _ in range(3):  # three workers die
        assert books.claimed(lease).dispatch_id == running
    assert books.claim(lease) is None
    lease.release()
    books.accept()
    fail(books, FOR_GOOD)
    scrape = Scrape(books)
    assert scrape("outcomes_total", agent="a", outcome="cancelled") == 1
    assert scrape("outcomes_total", agent="a", outcome="dead") == 2
    assert scrape("failures_total", agent="a", stage=str(FailureStage.WORKER_LOST)) == 3
    assert scrape("accepted_total") == 3


def test_the_oldest_is_found_below_higher_priorities(books: Books) -> None:
    old = books.accept(priority=0)[0]
    books.store.client.hincrby(f"fleet:dispatch:{old}", "queued_ms", -90_000)
    for priority in (9, 5, 9):
        books.accept(priority=priority)
    scrape = Scrape(books)
    assert 90 <= scrape("oldest_seconds", agent="a") < 150
    assert scrape("dispatches", agent="a", state="queued") == 4
    assert scrape("oldest_seconds", agent="b") == 0


def test_labels_are_agents_of_the_configuration_only(books: Books) -> None:
    books.accept("b")
    scrape = Scrape(books, "a")
    assert scrape.labels("agent") >= {"a"}
    assert "b" not in scrape.labels("agent")


def test_a_provider_that_is_left_alone_is_told(books: Books) -> None:
    settings = BreakerConfig(failure_threshold=1)
    gate = Providers(lambda: books.store, settings, "a")
    gate.report("acme/m", "5f00", "failed")
    gate.report("acme/m", "5f00", "denied")
    scrape = Scrape(books)
    assert scrape("provider_breaker_open", provider="acme/m") == 1
    assert scrape.labels("provider") == {"acme/m", "acme/m key 5f00"}


def test_the_histogram_has_the_bounds_that_are_counted() -> None:
    (bounds,) = re.findall(r"ipairs\(\{([\d,\s]+)\}\)", (SCRIPTS / "_ending.lua").read_text())
    assert tuple(map(int, bounds.split(","))) == TURN_BOUNDS_MS


def test_both_text_formats_are_spoken(books: Books) -> None:
    reading = metrics.read(books.store, ["a"])
    for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        body, media_type = metrics.render(reading, Clients(), accept)
        assert media_type.startswith(accept.partition(";")[0])
        assert b"fleet_up 1.0" in body


def test_without_the_store_only_this_process_is_told() -> None:
    body, _ = metrics.render(None, Clients(following=3))
    families = {family.name for family in text_string_to_metric_families(body.decode())}
    assert b"fleet_up 0.0" in body
    assert b"fleet_bus_clients 3.0" in body
    assert "fleet_outcomes" not in families
