"""Repairs of beat, and the limits of these repairs; no content lies where it should not."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fleet.config.settings import Settings
from fleet.ledger import operations
from fleet.ledger.maintenance import BATCH, UNTOUCHED_MS, periodic_lock
from fleet.store import Store, keys
from tests.fixtures.fleet import CELERY, READY, Fleet, fleet_of
from tests.fixtures.ledger import OUTAGE, Books, contents, settings_for
from tests.fixtures.processes import wait_until

RETRY = {"attempts": 2, "backoff_s": 0, "min_age_s": 0}
SETTINGS: Settings = settings_for("a", "b", retry=RETRY, max_pending=10_000)


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, SETTINGS)


def without_ticks(books: Books) -> dict[str, object]:
    return {key: value for key, value in contents(books.store).items() if key != keys.BEAT}


def test_lost_wakeups_are_sent_again_and_no_others(books: Books) -> None:
    for _ in range(3):
        books.accept("a")
    books.store.client.delete(keys.queue("a"))
    assert books.reclaim()["rung"] == 3
    assert books.reclaim()["rung"] == 0
    assert books.wakeups("a") == 3


def test_what_waits_or_runs_long_is_not_touched(books: Books) -> None:
    lease = books.held("a")
    books.accept("a")
    books.accept("b")
    books.claimed(lease)
    books.store.client.rpop(keys.queue("a"))
    before = without_ticks(books)
    for _ in range(3):
        assert set(books.reclaim().values()) == {0}
    assert without_ticks(books) == before


def test_an_active_dispatch_under_a_dead_lease_gets_a_wakeup(books: Books) -> None:
    lease = books.held("a")
    books.accept("a")
    books.claimed(lease)
    books.store.client.delete(keys.queue("a"), keys.lease("a"))
    assert books.reclaim() == {"retried": 0, "expired": 0, "rung": 1, "offline": 1}
    assert books.wakeups("a") == 1


def test_a_paused_agent_is_respected(books: Books) -> None:
    lease = books.held("a")
    (dispatch_id,) = books.accept("a")
    books.fail(books.claimed(lease), OUTAGE)
    operations.pause(books.ledger, "a")
    assert books.reclaim()["retried"] == 1
    assert books.state(dispatch_id) == "queued"
    assert books.claim(lease) is None
    operations.resume(books.ledger, "a")
    assert books.claimed(lease).attempt == 2


def test_one_call_moves_a_bounded_number(books: Books) -> None:
    for n in range(BATCH + 10):
        books.accept("a", id=str(n))
    ids = books.store.client.zrange("fleet:deadlines", 0, -1)
    overdue: dict[str, Any] = {str(dispatch_id): 1 for dispatch_id in ids}
    books.store.client.zadd("fleet:deadlines", overdue)
    assert [books.reclaim()["expired"] for _ in range(3)] == [BATCH, 10, 0]


def test_a_queue_that_nobody_empties_is_told_once(books: Books) -> None:
    (dispatch_id,) = books.accept("a")
    books.reclaim()
    assert not books.bus("alert")
    key = keys.dispatch(dispatch_id)
    books.store.client.hincrby(key, "queued_ms", -UNTOUCHED_MS - 1000)
    for _ in range(3):
        books.reclaim()
    (alert,) = books.bus("alert")
    assert (alert.fields["name"], alert.fields["agent"]) == ("stuck_queue", "a")


def test_after_a_silence_agents_have_time_to_come_back(books: Books) -> None:
    """The whole fleet was down: nothing is given up, or called stuck, before anybody can work."""
    (dispatch_id,) = books.accept("a")
    books.reclaim()
    client = books.store.client
    client.hincrby(keys.dispatch(dispatch_id), "queued_ms", -UNTOUCHED_MS - 1000)
    client.zadd("fleet:deadlines", {dispatch_id: 1})
    books.silence()
    for _ in range(3):
        assert books.reclaim()["expired"] == 0
    assert not books.bus("alert")
    books.grace_over()  # and nobody came
    assert books.reclaim()["expired"] == 1
    assert books.ends(dispatch_id) == ["dispatch_expired"]


def test_a_holder_notices_that_beat_is_dead(books: Books) -> None:
    lease = books.held("a")
    lease.renew()
    assert not books.bus("alert")
    books.store.client.hincrby(keys.lease("a"), "since_ms", -60_000)
    for _ in range(3):
        lease.renew()
    (alert,) = books.bus("alert")
    assert alert.fields["name"] == "beat_dead"


def test_several_beats_do_the_work_of_one(store: Store) -> None:
    assert [periodic_lock(store, "sweep", 60) for _ in range(3)] == [True, False, False]
    assert periodic_lock(store, "reclaim", 60)


def test_content_is_in_the_keys_that_say_so_only(books: Books) -> None:
    canary = "canary-4711"
    lease = books.held("a")
    books.accept("a", text=canary, data={"note": canary, canary: 1})
    claim = books.claimed(lease)
    books.ledger.step(claim, "1", f'{{"result": "{canary}"}}')
    books.fail(claim, replace(OUTAGE, message=canary, traceback=canary))
    books.reclaim()
    books.complete(books.claimed(lease), canary)
    holding = {key for key, value in contents(books.store).items() if canary in f"{key}{value}"}
    assert {key.rpartition(":")[0] for key in holding} == {
        "fleet:payload",
        "fleet:journal",
        "fleet:failures",
        "fleet:outcome",
    }


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    agents = {"a": {"retry": {**RETRY, "attempts": 3}}}
    with fleet_of(tmp_path_factory.mktemp("fleet"), agents) as fleet:
        yield fleet


def test_a_real_beat_brings_retries_back(fleet: Fleet) -> None:
    """Two of them, as on two hosts; the second one changes nothing."""
    worker, shared = fleet.worker("a"), fleet.shared()
    for n in range(2):
        fleet.start("beat", str(CELERY), "-A", "fleet", "beat", "-s", f"schedule-{n}")
    worker.wait_said(READY)
    shared.wait_said(READY)
    dispatch_id = fleet.send("a", "fail retryable")
    fleet.wait_state(dispatch_id, "dead")
    assert [turn["attempt"] for turn in fleet.diary("start", dispatch_id)] == [1, 2, 3]
    assert fleet.books.ends(dispatch_id) == ["dispatch_dead"]
    ticks = fleet.books.store.client.hgetall
    wait_until(lambda: {"reclaim", "health"} <= set(ticks(keys.BEAT)))
