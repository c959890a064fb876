"""The more urgent first, then the older; the events of a session strictly in their order."""

from tests.fundamentals.fleet import Fleet


def test_the_more_urgent_first_and_then_the_older(fleet: Fleet) -> None:
    running = fleet.send("patient")
    fleet.wait_started(running)
    calm = [fleet.send("patient", priority=1) for _ in range(2)]
    urgent = [fleet.send("patient", priority=9) for _ in range(2)]
    fleet.let_go()
    fleet.wait(calm[-1])
    assert fleet.turns() == [running, *urgent, *calm]


def test_a_session_is_in_order_over_all_agents(fleet: Fleet) -> None:
    sessions = {
        name: [fleet.send(agent, session=name) for agent in ("echo", "stepwise") * 3]
        for name in ("a", "b", "c")
    }
    fleet.let_go()
    for ids in sessions.values():
        fleet.wait(ids[-1])
    for ids in sessions.values():
        assert [turn for turn in fleet.turns() if turn in ids] == ids
        assert fleet.never_two_at_once(*ids)


def test_an_interrupted_dispatch_runs_again_before_any_later_one(fleet: Fleet) -> None:
    first = fleet.send("patient")
    fleet.wait_started(first)
    later = [fleet.send("patient", priority=9) for _ in range(3)]
    fleet.kill_turn(first)
    fleet.wait_started(first, times=2)
    fleet.let_go()
    fleet.wait(later[-1])
    assert fleet.turns() == [first, first, *later]
    assert fleet.outcomes(first) == ["dispatch_completed"]
