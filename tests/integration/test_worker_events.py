"""Dispatches as those who follow Celery's events see them, such as Flower."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from tests.fixtures.fleet import CELERY, Fleet, fleet_of
from tests.fixtures.processes import wait_until
from tests.fixtures.viewer import Viewer


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    retry = {"attempts": 2, "backoff_s": 0.2, "min_age_s": 0}
    agents: dict[str, dict[str, Any]] = {"a": {}, "b": {"retry": retry}, "c": {"timeout_s": 2}}
    folder = tmp_path_factory.mktemp("fleet")
    with fleet_of(folder, agents, hard_limit_margin_s=1) as fleet:
        fleet.ready("a", "b", "c")
        fleet.shared().wait_said(" ready.")
        fleet.start("beat", str(CELERY), "-A", "fleet", "beat", "--pidfile=")
        yield fleet


@pytest.fixture(scope="module")
def viewer(fleet: Fleet) -> Iterator[Viewer]:
    found = Viewer(fleet.server.url)
    # Only then it is known to hear what is sent.
    wait_until(lambda: bool(found.heard), 60)
    yield found
    found.close()


def test_a_dispatch_is_shown_as_it_ended(fleet: Fleet, viewer: Viewer) -> None:
    done = fleet.send("a", "say canary-4711", session="s-7")
    dead = fleet.send("a", "fail permanently", session="s-8")
    raised = fleet.send("a", "raise ValueError")
    again = fleet.send("b", "fail retryable")

    task = viewer.wait_state(done, "SUCCESS")
    assert task.name == "fleet.dispatch"
    for shown in (task.kwargs, task.result):
        assert "'agent': 'a'" in shown
        assert "'session': 's-7'" in shown
        assert "'state': 'completed'" in shown

    fleet.wait_state(dead, "dead")
    task = viewer.wait_state(dead, "FAILURE")
    assert "tool: it failed" in task.exception
    assert "'session': 's-8'" in task.kwargs
    assert "'state': 'dead'" in task.kwargs
    assert "ValueError" in viewer.wait_state(raised, "FAILURE").exception

    viewer.wait_state(again, "RETRY")
    fleet.wait_state(again, "dead")
    viewer.wait_state(again, "FAILURE")
    assert fleet.books.record(again)["attempt"] == "2"

    wait_until(lambda: bool(fleet.books.store.client.hgetall("fleet:beat")), 30)
    told = {str(event.get("name")) for event in viewer.heard if "name" in event}
    assert told == {"fleet.dispatch"}, "no upkeep"
    assert "canary" not in str(viewer.heard)
    raised_line = f"fleet.dispatch[{dead}] raised expected"
    wait_until(lambda: raised_line in fleet.processes[0].said(), 30)
    (line,) = [line for line in fleet.processes[0].said().splitlines() if raised_line in line]
    assert "INFO" in line


def test_a_turn_killed_at_its_hard_limit_has_failed(fleet: Fleet, viewer: Viewer) -> None:
    first = fleet.send("c", "gate go")
    fleet.wait_started(first)
    stuck = fleet.send("c", "swallow", session="s-9", priority=9)
    fleet.send("c", "say hello")
    fleet.open_gate("go")
    fleet.wait_state(stuck, "dead")
    task = viewer.wait_state(stuck, "FAILURE")
    assert "hard limit" in task.exception
    assert "'agent': 'c'" in task.kwargs
    viewer.wait_state(first, "SUCCESS")


def test_a_failure_stays_one_when_its_wake_up_comes_again(fleet: Fleet, viewer: Viewer) -> None:
    dead = fleet.send("a", "fail permanently")
    viewer.wait_state(dead, "FAILURE")
    Celery(broker=fleet.server.url, set_as_current=False).send_task(
        "fleet.dispatch", [dead], task_id=dead, queue="agent.a", ignore_result=True
    )
    fleet.processes[0].wait_said(f"nothing to do for {dead}")
    last = fleet.send("a", "say hello")
    viewer.wait_state(last, "SUCCESS")
    viewer.wait_state(dead, "FAILURE")


def test_a_dispatch_that_another_ones_wake_up_ran_has_its_own_end(
    fleet: Fleet, viewer: Viewer
) -> None:
    first = fleet.send("a", "gate held")
    fleet.wait_started(first)
    background = fleet.send("a", "say hello", priority=0)
    person = fleet.send("a", "gate on", priority=9, session="s-9")
    fleet.open_gate("held")
    fleet.wait_started(person)
    task = viewer.wait_state(person, "STARTED")
    wait_until(lambda: "'session': 's-9'" in task.kwargs, 30)
    assert viewer.state.tasks[background].state != "SUCCESS"
    fleet.open_gate("on")
    viewer.wait_state(person, "SUCCESS")
    viewer.wait_state(background, "SUCCESS")
