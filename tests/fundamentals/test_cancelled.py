"""A cancelled dispatch ends as cancelled, whether it waits or runs, and frees its agent."""

import pytest

from tests.fixtures.processes import gone, wait_until
from tests.fundamentals.fleet import Fleet


def test_a_waiting_dispatch_never_runs_when_it_is_cancelled(fleet: Fleet) -> None:
    running = fleet.send("patient")
    fleet.wait_started(running)
    cancelled, after = fleet.send("patient"), fleet.send("patient")
    fleet.cancel(cancelled)
    fleet.let_go()
    fleet.wait(after)
    assert fleet.turns() == [running, after]
    assert fleet.outcomes(cancelled) == ["dispatch_cancelled"]


def test_a_running_turn_stops_at_its_next_step(fleet: Fleet) -> None:
    dispatch_id = fleet.send("stepwise")
    wait_until(lambda: len(fleet.journal(dispatch_id)) == 1)
    fleet.cancel(dispatch_id)
    fleet.let_go()
    fleet.wait(dispatch_id, "cancelled")
    assert fleet.outcomes(dispatch_id) == ["dispatch_cancelled"]


@pytest.mark.parametrize("text", ["the program", "session"])
def test_a_turn_and_its_program_are_killed_when_it_is_cancelled_now(
    fleet: Fleet, text: str
) -> None:
    dispatch_id = fleet.send("hands_on", text)
    turn, program = fleet.wait_started(dispatch_id), fleet.program()
    fleet.cancel(dispatch_id, now=True)
    fleet.wait(dispatch_id, "cancelled")
    after = fleet.send("hands_on", "nothing")
    fleet.wait(after)
    assert fleet.wait_started(after) != turn
    wait_until(lambda: gone(program))
    assert fleet.turn_of(dispatch_id) == ["start"]
    assert fleet.outcomes(dispatch_id) == ["dispatch_cancelled"]
