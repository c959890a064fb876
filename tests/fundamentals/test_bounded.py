"""Every turn ends in time, and what waits is bounded."""

import pytest

from fleet.errors import FleetError
from tests.fundamentals.agents import TABLES
from tests.fundamentals.fleet import Fleet


def test_the_soft_limit_ends_a_turn_that_blocks(fleet: Fleet) -> None:
    dispatch_id = fleet.send("stuck")
    dispatch = fleet.wait(dispatch_id, "dead")
    assert (dispatch.error_kind, dispatch.attempts) == ("Deadline", 1)
    assert fleet.turn_of(dispatch_id) == ["start"]
    assert fleet.outcomes(dispatch_id) == ["dispatch_dead"]


def test_the_hard_limit_kills_a_turn_that_ignores_the_soft_one(fleet: Fleet) -> None:
    dispatch_id = fleet.send("stubborn")
    turn = fleet.wait_started(dispatch_id)
    assert fleet.wait(dispatch_id, "dead").error_kind == "TimeLimitExceeded"
    assert fleet.turn_of(dispatch_id) == ["start", "ignored Deadline"]
    assert fleet.outcomes(dispatch_id) == ["dispatch_dead"]
    after = fleet.send("stubborn")
    assert fleet.wait_started(after) != turn, "another process runs the next turn"
    fleet.wait(after, "dead")


def test_an_agent_with_too_much_to_do_refuses_more(fleet: Fleet) -> None:
    limit = int(str(TABLES["patient"]["max_pending"]))
    waiting = [fleet.queue("patient") for _ in range(limit)]
    with pytest.raises(FleetError, match=f"patient has {limit} events waiting"):
        fleet.queue("patient")
    fleet.let_go()
    fleet.start_worker("patient")
    for dispatch_id in waiting:
        fleet.wait(dispatch_id)
