"""A worker that lost its lease can write nothing, and no turn of it goes on."""

import pytest

from fleet.worker.guards import LEASE_LOST_EXIT
from tests.fixtures.processes import gone, wait_until
from tests.fundamentals.fleet import PATIENCE_S, Fleet


@pytest.mark.parametrize("hung", ["worker", "worker and turn"])
def test_a_worker_that_hangs_past_its_lease_is_replaced_and_writes_nothing(
    fleet: Fleet, hung: str
) -> None:
    fleet.start_workers("patient", 2)
    dispatch_id = fleet.send("patient")
    turn = fleet.wait_started(dispatch_id)
    worker = fleet.worker("patient")
    pids = (worker.pid,) if hung == "worker" else (worker.pid, turn)
    with fleet.stopped(*pids):
        fleet.wait_started(dispatch_id, times=2)
        fleet.let_go()
        assert fleet.wait(dispatch_id).attempts == 2
    assert worker.wait(PATIENCE_S) == LEASE_LOST_EXIT
    wait_until(lambda: gone(turn))
    assert fleet.turn_of(dispatch_id) == ["start", "start", "end"]
    assert fleet.outcomes(dispatch_id) == ["dispatch_completed"]


def test_a_turn_that_wakes_before_its_worker_does_not_go_on(fleet: Fleet) -> None:
    fleet.start_workers("patient", 2)
    dispatch_id = fleet.send("patient")
    turn = fleet.wait_started(dispatch_id)
    worker = fleet.worker("patient")
    with fleet.stopped(worker.pid):
        with fleet.stopped(turn):
            fleet.wait_started(dispatch_id, times=2)
            fleet.let_go()
            fleet.wait(dispatch_id)
        wait_until(lambda: gone(turn))
    assert worker.wait(PATIENCE_S) == LEASE_LOST_EXIT
    assert fleet.turn_of(dispatch_id) == ["start", "start", "end"]
    assert fleet.outcomes(dispatch_id) == ["dispatch_completed"]
