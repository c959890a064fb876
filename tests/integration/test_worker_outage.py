"""The broker dies or hangs in mid-turn: one run, and the workers go on by themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.broker.breaker import Breaker
from fleet.errors import StoreLost
from fleet.ledger import store_life
from fleet.system.agent_lock import TurnLock
from fleet.worker.guards import LEASE_LOST_EXIT
from tests.fixtures.fleet import READY, START_S, Fleet, Process, Tables, fleet_of
from tests.fixtures.processes import no_leftovers, wait_until

__all__ = ["no_leftovers"]

#: A lease must outlive the outages of this file on a loaded machine.
LEASE_S = 6.0


@pytest.fixture
def fleet(no_leftovers: str, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, {"a": {}}, durable=True, lease_ttl_s=LEASE_S) as fleet:
        yield fleet


@pytest.fixture
def worker(fleet: Fleet) -> Iterator[Process]:
    """The same process after the test as before it, with the same child, and at work."""
    (worker,) = fleet.ready("a")
    children = worker.children()
    yield worker
    fleet.wait_state(fleet.send("a", "say hello"), "completed")
    assert worker.alive
    assert worker.children() == children
    assert [e.fields["fence"] for e in fleet.books.bus("agent_online")] == [1]


def assert_one_run(fleet: Fleet, dispatch_id: str) -> None:
    record = fleet.wait_state(dispatch_id, "completed")
    assert (record["attempt"], record["losses"]) == ("1", "0")
    assert len(fleet.diary("start", dispatch_id)) == 1
    assert fleet.books.ends(dispatch_id) == ["dispatch_completed"]


def test_killed_and_started_again_in_mid_turn(fleet: Fleet, worker: Process) -> None:
    running, later = fleet.send("a", "gate open"), fleet.send("a", "say it")
    fleet.wait_started(running)
    fleet.server.kill()
    worker.wait_said("Connection to broker lost")
    fleet.server.start()
    fleet.open_gate("open")
    assert_one_run(fleet, running)
    assert_one_run(fleet, later)


def test_away_while_the_turn_ends(fleet: Fleet, worker: Process) -> None:
    """The outcome waits for the broker."""
    running = fleet.send("a", "gate open")
    fleet.wait_started(running)
    fleet.server.kill()
    fleet.open_gate("open")
    wait_until(lambda: bool(fleet.diary("end", running)))
    fleet.server.start()
    assert_one_run(fleet, running)


def test_away_between_two_steps(fleet: Fleet, worker: Process) -> None:
    running = fleet.send("a", "steps one two")
    # Not only in the journal: the turn has been told so.
    wait_until(lambda: bool(fleet.diary("kept", running)), START_S)
    fleet.server.kill()
    fleet.open_gate("one")
    wait_until(lambda: len(fleet.diary("call", running)) == 2)
    fleet.server.start()
    fleet.open_gate("two")
    assert_one_run(fleet, running)
    assert len(fleet.diary("call", running)) == 2


def test_hanging_for_a_moment(fleet: Fleet, worker: Process) -> None:
    running = fleet.send("a", "gate open")
    fleet.wait_started(running)
    fleet.server.pause()
    fleet.open_gate("open")
    wait_until(lambda: bool(fleet.diary("end", running)))
    fleet.server.resume()
    assert_one_run(fleet, running)


def test_away_for_longer_than_the_lease(fleet: Fleet) -> None:
    """The worker has to end, and its turn to run again; but the event is not to blame for it."""
    (worker,) = fleet.ready("a")
    running = fleet.send("a", "gate open")
    fleet.wait_started(running)
    fleet.server.kill()
    assert worker.wait() == LEASE_LOST_EXIT
    fleet.server.start()
    fleet.ready("a")
    fleet.wait_started(running, times=2)
    fleet.open_gate("open")
    record = fleet.wait_state(running, "completed")
    assert (record["attempt"], record["losses"]) == ("2", "0")
    (failed,) = fleet.books.bus("dispatch_failed")
    assert failed.fields["reason"] == "the worker was lost while the store was away"


def test_its_data_gone(fleet: Fleet) -> None:
    """Not silently fine: said on the bus, and the worker starts from scratch."""
    (worker,) = fleet.ready("a")
    fleet.send("a", "gate never")
    fleet.books.store.client.flushall()
    fleet.books.accept("a", "say it")
    assert worker.wait() == LEASE_LOST_EXIT
    # The fact is told once, as `store_lost`, and not once more by each worker.
    with pytest.raises(StoreLost, match="it was emptied"):
        store_life.check_lost(fleet.books.store)
    assert not fleet.books.bus("alert")
    assert store_life.recover(fleet.books.store)


def test_started_while_it_is_away(fleet: Fleet) -> None:
    """It looks for the broker all the time, not less and less often as Celery would."""
    fleet.server.kill()
    worker = fleet.worker("a")
    worker.wait_said("this worker waits for it")
    fleet.server.start()
    worker.wait_said(READY)
    fleet.wait_state(fleet.send("a", "say it"), "completed")
    assert "Trying again in" not in worker.said()


def test_standing_by_for_turns_from_the_spool_it_closes_the_breaker(
    no_leftovers: str, tmp_path: Path
) -> None:
    """They go on until the breaker is closed, and its own probes come less and less often."""
    sections: Tables = {"spool": {"direct": True}, "breaker": {"reset_timeout_s": 300}}
    with fleet_of(tmp_path, {"a": {}}, sections=sections, data_dir=str(tmp_path / "data")) as fleet:
        breaker, spool = Breaker.of(fleet.settings), TurnLock(fleet.settings.data_dir, "a")
        breaker.prepare()
        for _ in range(fleet.settings.breaker.failure_threshold):
            breaker.record_failure("an outage")
        assert spool.acquire()
        worker = fleet.worker("a")
        wait_until(lambda: breaker.closed, START_S)
        spool.release()
        worker.wait_said(READY)


def test_standing_by_while_the_broker_hangs_it_leaves_the_agent_to_the_spool(
    no_leftovers: str, tmp_path: Path
) -> None:
    sections: Tables = {"spool": {"direct": True}}
    with fleet_of(tmp_path, {"a": {}}, sections=sections, data_dir=str(tmp_path / "data")) as fleet:
        breaker, spool = Breaker.of(fleet.settings), TurnLock(fleet.settings.data_dir, "a")
        breaker.prepare()
        (holder,) = fleet.ready("a")
        worker = fleet.worker("a")
        worker.wait_said("standing by")
        fleet.server.pause()
        holder.kill()
        worker.wait_said("cannot be acquired")
        for _ in range(fleet.settings.breaker.failure_threshold):
            breaker.record_failure("an outage")
        wait_until(spool.acquire, 30)
        spool.release()
        fleet.server.resume()
        fleet.wait_state(fleet.send("a", "say it"), "completed")
