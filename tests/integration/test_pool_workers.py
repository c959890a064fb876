"""Real workers of a pool: turns of many agents, whose troubles stay their own."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.ledger import operations
from tests.fixtures.fleet import READY, Fleet, Process, fleet_of
from tests.fixtures.processes import gone, wait_until
from tests.fixtures.processes import no_leftovers as no_leftovers
from tests.fixtures.viewer import Viewer

#: A takeover that had to wait for it would take longer than any test has patience.
LEASE_S = 120.0
AGENTS: dict[str, dict[str, Any]] = {
    "a": {"pool": "p"},
    "b": {"pool": "p"},
    "many": {"pool": "p", "parallel": 3},
    "short": {"pool": "p", "timeout_s": 2},
    "again": {"pool": "p", "retry": {"attempts": 2, "backoff_s": 0.2, "min_age_s": 0}},
}


POOL = {"pools.p": {"processes": 3}}
OPTIONS: dict[str, Any] = {"lease_ttl_s": LEASE_S, "hard_limit_margin_s": 1, "drain_s": 1}


@pytest.fixture
def fleet(request: pytest.FixtureRequest, no_leftovers: str, tmp_path: Path) -> Iterator[Fleet]:
    options = {**OPTIONS, **getattr(request, "param", {})}
    with fleet_of(tmp_path, AGENTS, sections=POOL, **options) as fleet:
        yield fleet


@pytest.fixture
def worker(fleet: Fleet) -> Process:
    return fleet.ready("a")[0]


def second(fleet: Fleet) -> Process:
    """One more worker of the pool."""
    other = fleet.worker("a", "-n", "another@%h")
    other.wait_said(READY)
    return other


def test_a_turn_that_hangs_holds_up_no_other_agent(fleet: Fleet, worker: Process) -> None:
    stuck = fleet.send("short", "swallow")
    pid = fleet.wait_started(stuck)
    for _ in range(10):
        fleet.send("a", "say it")
    fleet.wait_state(fleet.send("a", "say it"), "completed")
    record = fleet.wait_state(stuck, "dead")
    assert record["error_kind"] == "TimeLimitExceeded"
    assert record["losses"] == "0"
    assert gone(pid)
    assert worker.alive
    assert [n["what"] for n in fleet.diary("", stuck)] == ["start", "Deadline"]
    fleet.wait_state(fleet.send("short", "say it"), "completed")


def test_a_killed_child_costs_its_own_turn_only(fleet: Fleet, worker: Process) -> None:
    lost, other = fleet.send("a", "beat go"), fleet.send("b", "gate go")
    fleet.wait_started(other)
    child = fleet.wait_started(lost)
    later = fleet.send("a", "say it", priority=9)
    os.kill(child, signal.SIGKILL)
    fleet.wait_started(lost, times=2)
    fleet.open_gate("go")
    assert fleet.wait_state(lost, "completed")["losses"] == "1"
    assert fleet.wait_state(other, "completed")["attempt"] == "1"
    fleet.wait_state(later, "completed")
    assert [n["dispatch_id"] for n in fleet.diary("start") if n["agent"] == "a"] == [
        lost,
        lost,
        later,
    ]
    assert worker.alive


@pytest.mark.parametrize("victims", ["worker", "all"])
def test_another_worker_goes_on_at_once(victims: str, fleet: Fleet, worker: Process) -> None:
    sent = [fleet.send("a", "beat go"), fleet.send("b", "beat go")]
    children = [fleet.wait_started(one) for one in sent]
    second(fleet)
    os.kill(worker.pid, signal.SIGKILL)
    for child in children if victims == "all" else ():
        if not gone(child):
            os.kill(child, signal.SIGKILL)
    for one in sent:
        fleet.wait_started(one, times=2)
    fleet.open_gate("go")
    for one in sent:
        assert fleet.wait_state(one, "completed")["losses"] == "1"
        beats = [n["at"] for n in fleet.diary("beat", one) if n["attempt"] == 1]
        assert max(beats) < fleet.diary("start", one)[1]["at"], "two turns at once"
    assert all(gone(child) for child in children)


@pytest.mark.parametrize("fleet", [{"lease_ttl_s": 2}], indirect=True)
def test_a_stopped_worker_is_passed_over_and_writes_nothing(fleet: Fleet, worker: Process) -> None:
    one = fleet.send("a", "gate go")
    child = fleet.wait_started(one)
    second(fleet)
    for pid in (worker.pid, child):
        os.kill(pid, signal.SIGSTOP)
    fleet.wait_started(one, times=2)
    fleet.open_gate("go")
    fleet.wait_state(one, "completed")
    for pid in (worker.pid, child):
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: gone(child))
    assert [n["attempt"] for n in fleet.diary("end", one)] == [2]
    assert fleet.books.ends(one) == ["dispatch_completed"]


def test_a_stopping_worker_hands_its_turns_over(fleet: Fleet, worker: Process) -> None:
    one, two = fleet.send("a", "beat go"), fleet.send("b", "beat go")
    for each in (one, two):
        fleet.wait_started(each)
    second(fleet)
    worker.signal(signal.SIGTERM)
    for each in (one, two):
        fleet.wait_started(each, times=2)
    assert worker.wait() == 0
    fleet.open_gate("go")
    for each in (one, two):
        record = fleet.wait_state(each, "completed")
        assert record["losses"] == "0"
    assert "pool.p" in str(fleet.books.bus("agent_offline")[-1].fields)


def test_a_parallel_agent_serves_sessions_side_by_side(fleet: Fleet, worker: Process) -> None:
    sent = [fleet.send("many", "gate go", session=s) for s in ("s", "t", "s", "u")]
    pids = {fleet.wait_started(sent[n]) for n in (0, 1, 3)}
    assert len(pids) == 3
    assert not fleet.diary("start", sent[2])
    fleet.open_gate("go")
    fleet.wait_state(sent[2], "completed")


def test_a_turn_is_cancelled_at_once(fleet: Fleet, worker: Process) -> None:
    one, other = fleet.send("a", "swallow"), fleet.send("b", "gate go")
    later = fleet.send("a", "say it")
    child = fleet.wait_started(one)
    fleet.wait_started(other)
    operations.cancel(fleet.books.ledger, fleet.settings, one, "enough", now=True)
    fleet.wait_state(later, "completed")
    assert gone(child)
    assert fleet.books.ends(one) == ["dispatch_cancelled"]
    fleet.open_gate("go")
    assert fleet.wait_state(other, "completed")["attempt"] == "1"


@pytest.mark.parametrize("where", ["group", "session"])
def test_what_a_killed_turn_had_started_is_dead_before_the_next(
    where: str, fleet: Fleet, worker: Process
) -> None:
    one = fleet.send("a", f"tool {where}")
    child = fleet.wait_started(one)
    path = fleet.folder / "tool.pid"
    wait_until(lambda: path.exists() and path.read_text() != "")
    program = int(path.read_text())
    os.kill(child, signal.SIGKILL)
    fleet.wait_started(one, times=2)
    assert gone(program)
    operations.cancel(fleet.books.ledger, fleet.settings, one, "enough", now=True)
    wait_until(lambda: gone(fleet.wait_started(one)))


def test_every_dispatch_is_shown_to_those_who_follow_celerys_events(
    fleet: Fleet, worker: Process
) -> None:
    viewer = Viewer(fleet.server.url)
    try:
        wait_until(lambda: bool(viewer.heard), 60)
        held = [fleet.send(agent, "gate go") for agent in ("a", "b")]
        for one in held:
            fleet.wait_started(one)
        odd = "s}'{\\"
        sent = [fleet.send("many", "say it", session=odd) for _ in range(30)]
        dead = fleet.send("many", "fail permanently", session=odd)
        again = fleet.send("again", "fail retryable")
        viewer.wait_state(held[0], "STARTED")
        for one in sent:
            task = viewer.wait_state(one, "SUCCESS")
            assert "'agent': 'many'" in task.kwargs
        assert "tool: it failed" in viewer.wait_state(dead, "FAILURE").exception
        viewer.wait_state(again, "RETRY")
        stuck = fleet.send("short", "swallow")
        assert "hard limit" in viewer.wait_state(stuck, "FAILURE").exception
        os.kill(fleet.wait_started(held[1]), signal.SIGKILL)
        assert "died" in viewer.wait_state(held[1], "RETRY").exception
        fleet.open_gate("go")
        viewer.wait_state(held[1], "SUCCESS")
        viewer.wait_state(held[0], "SUCCESS")
    finally:
        viewer.close()
