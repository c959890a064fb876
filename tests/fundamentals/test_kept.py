"""An accepted event is never lost."""

from tests.fundamentals.fleet import Fleet


def test_an_event_outlives_the_death_of_every_process(fleet: Fleet) -> None:
    running = fleet.send("patient", "running")
    fleet.wait_started(running)
    waiting = [fleet.send("patient", f"waiting {number}") for number in range(3)]
    fleet.kill_everything()
    fleet.let_go()
    fleet.start_again("patient")
    for dispatch_id in (running, *waiting):
        assert fleet.wait(dispatch_id).answer.startswith("done")


def test_an_event_waits_for_a_worker_that_is_not_there_yet(fleet: Fleet) -> None:
    dispatch_id = fleet.queue("echo")
    fleet.start_worker("echo")
    assert fleet.wait(dispatch_id).answer == "You said: hello"


def test_an_event_is_done_although_its_wakeup_was_lost(fleet: Fleet) -> None:
    """A lost Celery message costs time, never the event: the ledger has the event."""
    dispatch_id = fleet.queue("echo")
    assert len(fleet.wakeups("echo")) == 1
    fleet.lose_wakeups("echo")
    fleet.start_worker("echo")
    assert fleet.wait(dispatch_id).state == "completed"
