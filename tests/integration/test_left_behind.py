"""Programs that a dead holder of an agent left running are dead before the next turn begins.

Each program of these agents takes one lock, and whatever belongs to it keeps that: the next one
finds it free, or two turns ran at once.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from fleet.intake.spool.offline import acquire, is_running
from fleet.runtime import Runtime
from fleet.store import keys
from routing import Event, decide
from tests.fakes import tool_server
from tests.fakes.provider import Provider
from tests.fixtures import alone, interactive
from tests.fixtures.fleet import FOLDER_MARK, ROOT, START_S, Fleet, Process, Tables, fleet_of
from tests.fixtures.processes import gone, no_leftovers, wait_until

__all__ = ["no_leftovers"]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere sessions must do"),
    pytest.mark.timeout(180),
]

#: Short, because some holders are only stopped: their lease has to run out.
LEASE_S = 2.0
STANDING_BY = "standing by"
#: Waits for a file of the name on its standard input.
WAITS = (
    "import os, sys, time\nname = sys.stdin.read()\nwhile not os.path.exists(name): time.sleep(.01)"
)
HOST = "import sys; from fleet.supervisor.host import serve; sys.exit(serve(['daemon'], 'INFO'))"


def agents_of(folder: Path, url: str) -> tuple[Tables, Tables]:
    """An agent of each kind, and the servers of tools that one of them asks."""

    def locked(*modes: str) -> list[str]:
        return [sys.executable, str(Path(alone.__file__)), str(folder), *modes]

    waits = [sys.executable, "-c", WAITS]
    talks = [sys.executable, str(Path(interactive.__file__)), "lines"]
    serves = [sys.executable, "-S", str(Path(tool_server.__file__)), "stubborn"]
    pty: dict[str, Any] = {"runner": "pty", "terminal": {"ready": "ready> $"}}
    agents: Tables = {
        "command": {"runner": "command", "command": [*locked(), *waits]},
        "daemon": {"runner": "command", "command": [*locked("twin"), *waits]},
        "bare": {"runner": "command", "command": [*locked("bare", "twin"), *waits]},
        "pty": {**pty, "command": [*locked("twin"), *talks]},
        "server": {
            "runner": "llm",
            "model": "openai/script",
            "params": {"api_base": url, "api_key": "k"},
            "tools": ["kit"],
        },
        "python": {"python": "tests.fixtures.agents:play"},
    }
    return agents, {"tools.kit": {"command": [*locked("twin"), *serves]}}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
def fleet(no_leftovers: str, tmp_path: Path, provider: Provider) -> Iterator[Fleet]:
    agents, tools = agents_of(tmp_path, provider.url)
    with fleet_of(tmp_path, agents, sections=tools, lease_ttl_s=LEASE_S) as fleet:
        yield fleet


def pair(fleet: Fleet, agent: str) -> tuple[Process, Process]:
    """The holder, and one that stands by."""
    (holder,) = fleet.ready(agent)
    other = fleet.worker(agent, "-n", "another@%h")
    other.wait_said(STANDING_BY)
    return holder, other


def begin(fleet: Fleet, agent: str) -> str:
    """A dispatch whose turn is in the middle, with everything running that it has started."""
    gate = str(fleet.folder / alone.GATE)
    texts = {
        "pty": f"await {gate}",
        "server": json.dumps([[["write_gate", {"text": gate}]]]),
        "python": f"forks {gate}",
    }
    before = len(alone.starts(fleet.folder))
    dispatch_id = fleet.send(agent, texts.get(agent, gate))
    wait_until(lambda: len(alone.starts(fleet.folder)) > before)
    wait_until(lambda: fleet.books.state(dispatch_id) == "active")
    if agent == "server":  # it is asked only once it has said what it offers
        served = fleet.folder / tool_server.SERVED
        wait_until(lambda: served.exists() and "write_gate" in served.read_text())
    return dispatch_id


def assert_one_at_a_time(fleet: Fleet, dispatch_id: str, times: int = 2) -> None:
    """The turn runs again, with nothing of the last attempt beside it, and ends."""
    wait_until(lambda: len(alone.starts(fleet.folder)) >= times)
    assert [start["alone"] for start in alone.starts(fleet.folder)] == [True] * times
    fleet.open_gate(alone.GATE)
    fleet.wait_state(dispatch_id, "completed")
    assert fleet.books.ends(dispatch_id) == ["dispatch_completed"]


AGENTS = ["command", "daemon", "bare", "pty", "server", "python"]


@pytest.mark.parametrize("agent", AGENTS)
def test_a_killed_holder(fleet: Fleet, agent: str) -> None:
    holder, other = pair(fleet, agent)
    (child,) = holder.children()
    dispatch_id = begin(fleet, agent)
    holder.kill()
    assert_one_at_a_time(fleet, dispatch_id)
    assert gone(child)
    assert other.alive


@pytest.mark.parametrize("agent", AGENTS)
def test_a_killed_child(fleet: Fleet, agent: str) -> None:
    (worker,) = fleet.ready(agent)
    (child,) = worker.children()
    dispatch_id = begin(fleet, agent)
    os.kill(child, signal.SIGKILL)
    assert_one_at_a_time(fleet, dispatch_id)
    assert worker.alive


def test_a_worker_that_is_started_after_the_death(fleet: Fleet) -> None:
    """The lease has run out by then, and nothing tells any more who held it."""
    (worker,) = fleet.ready("daemon")
    dispatch_id = begin(fleet, "daemon")
    worker.kill()
    wait_until(lambda: fleet.books.reclaim()["offline"] == 1)
    assert not fleet.books.store.client.exists(keys.lease("daemon"))
    fleet.ready("daemon")
    assert_one_at_a_time(fleet, dispatch_id)


def test_a_holder_that_is_stopped_with_its_child(fleet: Fleet) -> None:
    """Its program is not, and goes on."""
    holder, other = pair(fleet, "daemon")
    (child,) = holder.children()
    dispatch_id = begin(fleet, "daemon")
    for pid in (holder.pid, child):
        os.kill(pid, signal.SIGSTOP)
    assert_one_at_a_time(fleet, dispatch_id)
    assert other.alive


def test_a_keeper_that_is_stopped(fleet: Fleet) -> None:
    """It cannot clear up after its server."""
    holder, _ = pair(fleet, "server")
    dispatch_id = begin(fleet, "server")
    (child,) = holder.children()
    (keeper,) = psutil.Process(child).children()
    keeper.suspend()
    holder.kill()
    assert_one_at_a_time(fleet, dispatch_id)


@pytest.mark.parametrize("victims", ["worker", "host", "guardian and host"])
def test_under_a_host(fleet: Fleet, victims: str) -> None:
    host, other = (fleet.start(name, sys.executable, "-c", HOST) for name in ("host", "other"))
    wait_until(lambda: "holding" in host.said() + other.said(), START_S)
    for each in (host, other):
        wait_until(lambda one=each: "holding" in one.said() or STANDING_BY in one.said(), START_S)  # type: ignore[misc]
    dispatch_id = begin(fleet, "daemon")
    holder = str(fleet.books.store.client.hget(keys.lease("daemon"), "holder"))
    worker = psutil.Process(int(holder.rpartition(":")[2]))
    ours = host if worker.ppid() == host.pid else other
    # It leads a session as its workers do, and has no child.
    (guardian,) = [pid for pid in ours.children() if not psutil.Process(pid).children()]
    pids = {"worker": worker.pid, "host": ours.pid, "guardian": guardian}
    for victim in victims.split(" and "):
        os.kill(pids[victim], signal.SIGKILL)
    assert_one_at_a_time(fleet, dispatch_id)


@contextmanager
def offline(fleet: Fleet) -> "Iterator[subprocess.Popen[bytes]]":
    """The process that runs kept events."""
    folder = fleet.settings.data_dir.absolute() / "spool"
    # The one before is still ending.
    wait_until(lambda: not is_running(folder))
    lock = acquire(folder)
    assert lock is not None
    argv = [sys.executable, "-m", "tasks.execution.offline", str(lock)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), FOLDER_MARK: str(fleet.folder)}
    with subprocess.Popen(
        argv, cwd=fleet.folder, env=env, stdin=subprocess.PIPE, pass_fds=[lock]
    ) as process:
        os.close(lock)
        try:
            yield process
        finally:
            process.kill()


def test_without_the_store(no_leftovers: str, tmp_path: Path) -> None:
    """Leftovers of a dead worker before offline execution, leftovers of that, then a worker."""
    agents, _ = agents_of(tmp_path, "")
    data_dir = str(tmp_path / "data")
    options: dict[str, Any] = {"data_dir": data_dir, "lease_ttl_s": LEASE_S}
    spool = {"spool": {"direct": True}}
    with fleet_of(tmp_path, {"daemon": agents["daemon"]}, sections=spool, **options) as fleet:
        (worker,) = fleet.ready("daemon")
        dispatch_id = begin(fleet, "daemon")
        runtime = Runtime(fleet.settings)
        worker.kill()
        for _ in range(fleet.settings.breaker.failure_threshold):
            runtime.breaker.record_failure("test")
        raw = {"to": "daemon", "text": str(tmp_path / alone.GATE)}
        event = Event.parse(raw, new_id="kept", now="2026-01-01T00:00:00Z")
        runtime.spool.store([(event, decide(event, fleet.settings.rules()))])
        for times in (2, 3):
            with offline(fleet):
                wait_until(lambda count=times: len(alone.starts(tmp_path)) >= count)  # type: ignore[misc]
        fleet.ready("daemon")
        assert_one_at_a_time(fleet, dispatch_id, times=4)


def test_nothing_else_is_killed(
    fleet: Fleet, tmp_path_factory: pytest.TempPathFactory, provider: Provider
) -> None:
    """Not what another agent runs, and nothing of another fleet, not even what its dead left."""
    folder = tmp_path_factory.mktemp("another")
    agents, tools = agents_of(folder, provider.url)
    with fleet_of(folder, agents, sections=tools, lease_ttl_s=LEASE_S) as another:
        holder, _ = pair(fleet, "command")
        (foreign,) = another.ready("command")
        dispatch_id = begin(fleet, "command")
        left = begin(another, "command")
        (orphan,) = [start["pid"] for start in alone.starts(folder)]
        foreign.kill()
        fleet.ready("python")
        neighbour = fleet.send("python", "beat open")
        fleet.wait_started(neighbour)
        holder.kill()
        assert_one_at_a_time(fleet, dispatch_id)
        assert not gone(orphan)
        fleet.open_gate("open")
        assert fleet.wait_state(neighbour, "completed")["attempt"] == "1"
        another.ready("command")
        assert_one_at_a_time(another, left)
        assert gone(orphan)
