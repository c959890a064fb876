"""A failure that may pass is tried again, a bounded number of times; then it is a dead letter."""

from tests.fundamentals.fleet import Fleet


def test_a_failure_that_passes_ends_well(fleet: Fleet) -> None:
    fleet.start_beat()
    dispatch_id = fleet.send("fragile")
    fleet.wait_started(dispatch_id)
    fleet.mend()
    dispatch = fleet.wait(dispatch_id)
    assert (dispatch.answer, dispatch.attempts > 1) == ("at last", True)


def test_a_failure_that_stays_is_a_dead_letter_after_its_attempts(fleet: Fleet) -> None:
    fleet.start_beat()
    dispatch_id = fleet.send("fragile")
    dispatch = fleet.wait(dispatch_id, "dead")
    assert (dispatch.attempts, dispatch.error) == (3, "the disk is full")
    assert fleet.outcomes(dispatch_id) == ["dispatch_dead"]


def test_a_failure_that_cannot_pass_is_not_tried_again(fleet: Fleet) -> None:
    dispatch = fleet.wait(fleet.send("hopeless"), "dead")
    assert (dispatch.attempts, dispatch.error) == (1, "no such file")


def test_an_event_that_kills_its_workers_is_given_up_at_the_third(fleet: Fleet) -> None:
    poison, another = fleet.send("deadly"), fleet.send("echo")
    assert fleet.wait(another).state == "completed"
    assert fleet.wait(poison, "dead").attempts == 3
    assert fleet.outcomes(poison) == ["dispatch_dead"]
