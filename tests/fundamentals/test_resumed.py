"""A turn that was killed goes on at its first unfinished step: no finished call is paid twice."""

import pytest

from tests.fixtures.processes import wait_until
from tests.fundamentals.fleet import Fleet


@pytest.mark.parametrize("victim", ["turn", "worker", "everything"])
def test_a_finished_call_is_not_made_again(fleet: Fleet, victim: str) -> None:
    dispatch_id = fleet.send("stepwise", "a plan")
    wait_until(lambda: len(fleet.journal(dispatch_id)) == 1)
    if victim == "turn":
        fleet.kill_turn(dispatch_id)
    elif victim == "worker":
        fleet.kill_worker("stepwise")
        fleet.start_worker("stepwise")
    else:
        fleet.kill_everything()
        fleet.start_again("stepwise")
    fleet.let_go()
    dispatch = fleet.wait(dispatch_id)
    assert (dispatch.answer, dispatch.attempts) == ("polish of a plan", 2)
    assert fleet.turn_of(dispatch_id, "call") == ["call draft", "call polish"]


def test_calls_that_run_side_by_side_are_not_made_again_in_another_order(fleet: Fleet) -> None:
    dispatch_id = fleet.send("side_by_side", "a plan")
    wait_until(lambda: len(fleet.journal(dispatch_id)) == 1)
    fleet.kill_turn(dispatch_id)
    fleet.let_go()
    dispatch = fleet.wait(dispatch_id)
    assert (dispatch.answer, dispatch.attempts) == ("left of a plan, right of a plan", 2)
    assert fleet.turn_of(dispatch_id, "call") == ["call left", "call right"]
