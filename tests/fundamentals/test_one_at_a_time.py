"""An agent never runs two dispatches at once, anywhere."""

from tests.fundamentals.fleet import Fleet


def test_an_agent_does_one_thing_at_a_time(fleet: Fleet) -> None:
    ids = [fleet.send("echo") for _ in range(20)]
    fleet.wait(ids[-1])
    assert fleet.turns() == ids
    assert fleet.never_two_at_once()


def test_only_one_of_two_workers_works(fleet: Fleet) -> None:
    fleet.start_workers("echo", 2)
    ids = [fleet.send("echo") for _ in range(5)]
    fleet.wait(ids[-1])
    assert fleet.ran_by() <= set(fleet.worker("echo").children())
    assert fleet.never_two_at_once()


def test_the_other_worker_goes_on_after_the_death_of_the_first(fleet: Fleet) -> None:
    fleet.start_workers("patient", 2)
    ids = [fleet.send("patient") for _ in range(3)]
    killed = fleet.wait_started(ids[0])
    fleet.kill_worker("patient")
    fleet.wait_started(ids[0], times=2)
    fleet.let_go()
    fleet.wait(ids[-1])
    assert len(fleet.ran_by() - {killed}) == 1
    assert fleet.never_two_at_once(*ids[1:])
