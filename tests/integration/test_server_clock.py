"""The store's server has its clock set by two hours: the ledger's time goes on as before.

A real server under a real step: also what expires by itself there goes by its clock.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import runtime
from fleet.config.settings import load, parse
from fleet.ledger import State, agent_rows, views
from fleet.locks import LockBusy, SessionLock, TurnRWLock
from fleet.locks.renewal import RENEWAL
from fleet.ops import health
from fleet.ops.alerts.reading import conditions
from fleet.ops.metrics import read as read_metrics
from fleet.store import Store, keys, open_store
from tests.fixtures.deliveries import announced, claim, due, make, report, rested
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.processes import no_leftovers, wait_until
from tests.fixtures.set_clock import ClockedValkey

__all__ = ["no_leftovers"]

TWO_HOURS = 7200
STEPS = pytest.mark.parametrize("step", [TWO_HOURS, -TWO_HOURS], ids=["forth", "back"])


@pytest.fixture(scope="module")
def clocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClockedValkey]:
    server = ClockedValkey(tmp_path_factory.mktemp("clocked"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def store(clocked: ClockedValkey) -> Iterator[Store]:
    clocked.set_clock(0)
    opened = open_store(clocked.url)
    opened.client.flushall()
    yield opened
    opened.close()


def server_ms(store: Store) -> int:
    seconds, micros = store.client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def in_time(happened_ms: Any, due_ms: Any) -> bool:
    """True for what did not happen before it was due, nor hours after."""
    return 0 <= float(happened_ms) - float(due_ms) < 600_000


def test_the_server_is_under_the_tests_clock(store: Store, clocked: ClockedValkey) -> None:
    store.client.set("key", "value", px=60_000)
    before = server_ms(store)
    clocked.set_clock(TWO_HOURS)
    assert server_ms(store) - before >= TWO_HOURS * 1000
    assert not store.client.exists("key")


@STEPS
def test_a_turn_goes_on_and_ends_once(no_leftovers: str, tmp_path: Path, step: int) -> None:
    """Beside another worker that waits for its lease."""
    server = ClockedValkey(tmp_path)
    with fleet_of(tmp_path, {"a": {}}, server=server) as fleet:
        fleet.ready("a")
        running = fleet.send("a", "gate open")
        fleet.wait_started(running)
        other = fleet.worker("a")
        other.wait_said("standing by")
        server.set_clock(step)
        for _ in range(4):
            await_renewal(fleet)
        later = fleet.send("a", "say it")
        fleet.open_gate("open")
        for dispatch_id in (running, later):
            record = fleet.wait_state(dispatch_id, "completed")
            assert (record["attempt"], record["losses"], record["fence"]) == ("1", "0", "1")
            assert len(fleet.diary("start", dispatch_id)) == 1
            assert fleet.books.ends(dispatch_id) == ["dispatch_completed"]
        assert [e.fields["fence"] for e in fleet.books.bus("agent_online")] == [1]
        assert not fleet.books.bus("agent_offline")


def await_renewal(fleet: Fleet) -> None:
    client = fleet.books.store.client
    before = client.hget(keys.lease("a"), "reported_ms")

    def renewed() -> bool:
        fleet.books.reclaim()
        return client.hget(keys.lease("a"), "reported_ms") not in (None, before)

    wait_until(renewed)


@STEPS
def test_a_dead_holders_lease_ends_in_its_time(
    store: Store, clocked: ClockedValkey, step: int
) -> None:
    books = Books(store, settings_for("a"))
    assert books.lease(ttl_s=2).acquire()
    ends_ms = store.client.hget(keys.lease("a"), "until_ms")
    other = books.lease()
    other._is_gone = lambda _process: False
    clocked.set_clock(step)
    wait_until(other.acquire)
    assert in_time(store.client.hget(keys.lease("a"), "since_ms"), ends_ms)


@STEPS
def test_a_retry_comes_in_its_time(store: Store, clocked: ClockedValkey, step: int) -> None:
    retry = {"attempts": 2, "backoff_s": 3, "min_age_s": 0}
    books = Books(store, settings_for("a", retry=retry))
    (dispatch_id,) = books.accept()
    lease = books.held()
    books.fail(books.claimed(lease))
    assert books.state(dispatch_id) == State.RETRYING
    due_ms = store.client.zscore("fleet:retry", dispatch_id)
    clocked.set_clock(step)
    wait_until(lambda: books.reclaim()["retried"] == 1)
    assert in_time(books.record(dispatch_id)["queued_ms"], due_ms)
    assert books.claimed(lease).dispatch_id == dispatch_id


@STEPS
def test_no_deadline_passes(store: Store, clocked: ClockedValkey, step: int) -> None:
    """Nor by the first call after the step, which is a claim."""
    books = Books(store, settings_for("a", retry={"deadline_s": 600}))
    ids = books.accept() + books.accept()
    lease = books.held()
    clocked.set_clock(step)
    assert books.claimed(lease).dispatch_id == ids[0]
    assert books.reclaim()["expired"] == 0
    assert books.state(ids[1]) == State.QUEUED
    late = int(books.record(ids[1])["deadline_ms"]) - store.clock.now_ms()
    assert 0 < late <= 600_000


@STEPS
def test_a_delivery_is_tried_again_soon(store: Store, clocked: ClockedValkey, step: int) -> None:
    books = make(store, deadline_s=600)
    dispatch_id = announced(books)
    assert report(books, dispatch_id, claim(books, dispatch_id), "failed")[0] == "again"
    clocked.set_clock(step)
    assert not due(books)[0], "none is given up"
    wait_until(lambda: due(books)[1:] == [f"{dispatch_id} crm"])
    rested(store)
    report(books, dispatch_id, claim(books, dispatch_id), "ack")
    assert books.record(dispatch_id)["verification"] == "ack"


@STEPS
def test_quiet_comes_in_its_time(store: Store, clocked: ClockedValkey, step: int) -> None:
    agent = {"runner": "python", "python": "nobody:nothing", "on_busy": "coalesce"}
    sessions = {"coalesce_window_s": 2, "coalesce_max_s": 5}
    books = Books(store, parse({"agents": {"a": agent}, "sessions": sessions}))
    (dispatch_id,) = books.accept(session="s")
    lease = books.held()
    clocked.set_clock(step)

    def claimed() -> Any:
        books.reclaim()
        return books.claim(lease)

    wait_until(lambda: bool(claimed()))
    record = books.record(dispatch_id)
    assert in_time(record["started_ms"], record["quiet_ms"])


@STEPS
def test_locks_are_held(store: Store, clocked: ClockedValkey, step: int) -> None:
    session, guard = SessionLock(store, "s", turn="one", ttl_s=30), TurnRWLock(store, "t", ttl_s=30)
    held, write = session.hold(), guard.write()
    with held, write:
        clocked.set_clock(step)
        with pytest.raises(LockBusy), SessionLock(store, "s", turn="two").hold(0.1):
            pass
        with pytest.raises(LockBusy), TurnRWLock(store, "t").read(0.1):
            pass
        assert held.check()
        assert write.check()
    with SessionLock(store, "s", turn="two").hold(5), TurnRWLock(store, "t").read(5):
        pass


@STEPS
def test_who_waits_for_a_dead_holders_lock_gets_it(
    store: Store, clocked: ClockedValkey, step: int
) -> None:
    dead = SessionLock(store, "s", turn="one", ttl_s=2).hold()
    dead.enter()
    RENEWAL.remove(dead)
    clocked.set_clock(step)
    with SessionLock(store, "s", turn="two").hold(30):
        assert dead.lost


@STEPS
def test_health_shows_no_nonsense(
    store: Store, clocked: ClockedValkey, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setenv("FLEET_BROKER_URL", clocked.url)
    load.cache_clear()
    here = runtime.Runtime(load())
    agent = next(iter(here.settings.agents))
    books = Books(store, here.settings)
    books.accept(agent)
    books.reclaim()
    clocked.set_clock(step)
    found = health.document(here)
    assert abs(found["beat"]["last_tick_s"]) < 600
    assert 0 <= found["g1"]["oldest_pending_s"] < 600
    here.store.close()
    load.cache_clear()


@STEPS
def test_what_is_shown_stays_right(store: Store, clocked: ClockedValkey, step: int) -> None:
    books = Books(store, settings_for("a", "b"))
    books.accept("a")
    books.held("a")
    books.held("b")
    books.reclaim()
    clocked.set_clock(step)
    found = conditions(store, books.settings)
    assert not [one for one in found if "beat" in one.key]
    row = agent_rows.rows(store, ["a"])["a"]
    assert row["online"]
    assert row["held_s"] < 600
    assert views.counts(store, ["a"])["a"]["oldest_s"] < 600
    books.reclaim()
    assert (read_metrics(store, ["a"]).beat_s or 0) < 600
    assert not store.client.exists("fleet:back"), "the fleet was not away"
    assert not books.bus("alert")
    assert not books.bus("agent_offline")


def test_a_workers_machine_knows_the_time(store: Store, clocked: ClockedValkey) -> None:
    """A renewal is a look of its own: where beat looks too, no call is refused and looks."""
    lease = Books(store, settings_for("a")).held()
    store.client.delete(keys.CLOCK)
    store.client.hset(keys.CLOCK, mapping={"raw": server_ms(store), "offset": 0})
    assert lease.renew()
    assert len(set(store.client.hkeys(keys.CLOCK)) - {"raw", "offset", "shrunk"}) == 1
    clocked.set_clock(TWO_HOURS)
    assert lease.renew()
    assert abs(store.clock.now_ms() / 1000 - time.time()) < 600
