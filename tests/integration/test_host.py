"""A host: workers forked from one warm parent, watched, and never left behind."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from fleet.ledger import operations, starting
from fleet.store import keys
from fleet.supervisor.host import FREE_CRASHES
from tests.fixtures.fleet import Fleet, Process, fleet_of
from tests.fixtures.processes import gone, marked, no_leftovers, wait_until

__all__ = ["no_leftovers"]

HELD = "holding the lease of a under"
ENDED = "the worker of a ended with"
HOST = "import sys; from fleet.supervisor.host import serve; sys.exit(serve(log_level='INFO'))"


AGENTS: dict[str, dict[str, object]] = {"a": {}, "b": {}}


def started(fleet: Fleet) -> Process:
    """A host that serves both agents; it needs seconds, because it imports LiteLLM first."""
    host = fleet.start("host", sys.executable, "-c", HOST)
    # Nobody is alarmed about its agents while it starts.
    wait_until(lambda: starting.names(fleet.books.store) == AGENTS.keys())
    host.wait_said(" ready.", times=2)
    assert not starting.names(fleet.books.store)
    return host


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One for all tests but the last two; they are in the order in which it can bear them."""
    with fleet_of(tmp_path_factory.mktemp("fleet"), AGENTS) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Process:
    return started(fleet)


def worker_of(fleet: Fleet, agent: str) -> int:
    """The pid of the worker that holds an agent, 0 for none."""
    holder = str(fleet.books.store.client.hget(keys.lease(agent), "holder") or ":0")
    return int(holder.rpartition(":")[2])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def tool_of(fleet: Fleet) -> int:
    """The pid of what a turn has started, once it runs."""
    file = fleet.folder / "tool.pid"
    wait_until(lambda: file.exists() and bool(file.read_text()))
    return int(file.read_text())


def test_a_dead_worker_is_replaced_and_its_turn_runs_again(fleet: Fleet, host: Process) -> None:
    running = fleet.send("a", "beat open")
    turn = fleet.wait_started(running)
    later = fleet.send("a", "say it", priority=9)
    worker, neighbour = worker_of(fleet, "a"), worker_of(fleet, "b")
    killed_at = time.monotonic()
    kill(worker)
    fleet.wait_started(running, times=2)
    assert fleet.diary("start", running)[1]["at"] - killed_at < 3
    assert worker_of(fleet, "a") != worker
    assert gone(turn)
    fleet.open_gate("open")
    fleet.wait_state(later, "completed")
    assert [entry["dispatch_id"] for entry in fleet.diary("start")] == [running, running, later]
    assert fleet.books.ends(running) == ["dispatch_completed"]
    assert worker_of(fleet, "b") == neighbour
    fleet.wait_state(fleet.send("b", "say it"), "completed")


def test_what_a_dead_worker_left_running_dies_with_it(fleet: Fleet, host: Process) -> None:
    running = fleet.send("a", "tool session")
    fleet.wait_started(running)
    tool = tool_of(fleet)
    kill(worker_of(fleet, "a"))
    wait_until(lambda: gone(tool))
    operations.cancel(fleet.books.ledger, fleet.settings, running, "enough", now=True)


def test_a_crash_loop_backs_off_and_is_told(fleet: Fleet, host: Process) -> None:
    """The tests before this one may have spent some of the free ones."""
    while "; the next starts in 1 s" not in host.said():
        lives, ends = host.said().count(HELD), host.said().count(ENDED)
        assert ends <= FREE_CRASHES
        wait_until(lambda: not gone(worker_of(fleet, "a")))
        kill(worker_of(fleet, "a"))
        host.wait_said(ENDED, times=ends + 1)
        host.wait_said(HELD, times=lives + 1)
    wait_until(lambda: "crash_loop" in [e.fields["name"] for e in fleet.books.bus("alert")])
    (alert,) = [e.fields for e in fleet.books.bus("alert") if e.fields["name"] == "crash_loop"]
    assert alert["reason"] == "the worker of a keeps ending with -9"
    fleet.wait_state(fleet.send("a", "say it"), "completed")
    fleet.wait_state(fleet.send("b", "say it"), "completed")


def test_it_drains(fleet: Fleet, host: Process) -> None:
    running = fleet.send("a", "gate drain")
    fleet.wait_started(running)
    host.signal(signal.SIGTERM)
    host.wait_said("Warm shutdown", times=2)
    fleet.open_gate("drain")
    assert host.wait() == 0
    assert fleet.books.state(running) == "completed"
    assert {worker_of(fleet, agent) for agent in "ab"} == {0}


def test_nothing_outlives_a_killed_host(no_leftovers: str, tmp_path: Path) -> None:
    """Not its workers, not their children, not what these have started."""
    with fleet_of(tmp_path, AGENTS) as fleet:
        host = started(fleet)
        fleet.wait_started(fleet.send("a", "tool session"))
        fleet.wait_started(fleet.send("b", "hang"))
        tool_of(fleet)
        assert len(living(no_leftovers)) >= 6  # host, guardian, two workers, a child each
        host.kill()
        wait_until(lambda: not living(no_leftovers))


def living(mark: str) -> list[str]:
    """The processes of a test's fleet, except its server."""
    names = []
    for process in marked(mark):
        with suppress(psutil.NoSuchProcess):
            names.append(process.name())
    return [name for name in names if "valkey" not in name]


def test_an_agent_that_nobody_knows_is_refused(no_leftovers: str, tmp_path: Path) -> None:
    program = "from fleet.supervisor.host import serve; serve(['nobody'])"
    with fleet_of(tmp_path, AGENTS) as fleet:
        host = fleet.start("host", sys.executable, "-c", program)
        assert host.wait() != 0
        assert "agents.nobody: not an agent of this fleet." in host.said()
