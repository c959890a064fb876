"""Async turns, none of which may harm its worker. One fleet of real workers for the file."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.intake.spool.offline import acquire, is_running
from fleet.ledger import operations
from fleet.store import keys
from tests.fixtures.agents import DIARY
from tests.fixtures.fleet import ROOT, START_S, Fleet, Process, Tables, fleet_of
from tests.fixtures.processes import gone, wait_until
from tests.unit.test_spool_runs import Kept

SOFT_S = 1.5
MARGIN_S = 3.0
AGENTS = "tests.fixtures.async_agents"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    play = {"python": f"{AGENTS}:play"}
    agents: Tables = {
        "quick": {**play, "timeout_s": SOFT_S},
        "other": play,
        "talker": {"python": f"{AGENTS}:stream", "stream": True},
    }
    with fleet_of(tmp_path_factory.mktemp("fleet"), agents, hard_limit_margin_s=MARGIN_S) as fleet:
        fleet.ready(*agents)
        yield fleet


@pytest.fixture
def quick(fleet: Fleet) -> Iterator[Process]:
    """The worker of the agent with short limits: the same process after the test, and free."""
    worker = fleet.processes[0]
    yield worker
    assert worker.alive
    fleet.wait_state(fleet.send("quick", "say hello"), "completed")


def answer(fleet: Fleet, agent: str, text: str) -> str:
    dispatch_id = fleet.send(agent, text)
    fleet.wait_state(dispatch_id, "completed")
    return str(fleet.books.store.client.get(keys.outcome(dispatch_id)))


def test_a_coroutine_is_run_and_its_clients_are_kept(fleet: Fleet, quick: Process) -> None:
    assert answer(fleet, "quick", "say good morning") == "you said good morning"
    child, first = answer(fleet, "quick", "client").split()
    assert (first, answer(fleet, "quick", "client")) == ("first", f"{child} again")


def test_an_async_generator_streams_its_answer(fleet: Fleet) -> None:
    assert answer(fleet, "talker", "so it goes") == "so it goes "


@pytest.mark.parametrize(("word", "times"), [("hang", 1), ("gather", 2)])
def test_the_soft_limit_cancels_and_what_cleans_up_is_let(
    fleet: Fleet, quick: Process, word: str, times: int
) -> None:
    children = quick.children()
    dispatch_id = fleet.send("quick", word)
    record = fleet.wait_state(dispatch_id, "dead")
    assert (record["stage"], record["error_kind"]) == ("timeout", "Deadline")
    assert len(fleet.diary("cancelled", dispatch_id)) == times
    assert len(fleet.diary("cleaned up", dispatch_id)) == times
    assert quick.children() == children


def test_one_that_blocks_the_loop_ends_at_the_soft_limit_too(fleet: Fleet, quick: Process) -> None:
    children = quick.children()
    dispatch_id = fleet.send("quick", "block")
    record = fleet.wait_state(dispatch_id, "dead")
    assert (record["stage"], record["error_kind"]) == ("timeout", "Deadline")
    assert fleet.diary("cleaned up", dispatch_id)
    assert quick.children() == children


def test_the_hard_limit_ends_one_that_swallows_its_cancellation(
    fleet: Fleet, quick: Process
) -> None:
    dispatch_id = fleet.send("quick", "swallow")
    record = fleet.wait_state(dispatch_id, "dead")
    assert (record["stage"], record["error_kind"]) == ("timeout", "TimeLimitExceeded")
    assert [entry["what"] for entry in fleet.diary("", dispatch_id)] == ["start", "CancelledError"]


def test_a_task_left_behind_ends_with_its_turn(fleet: Fleet, quick: Process) -> None:
    assert answer(fleet, "quick", "leave") == "left"
    assert [entry["what"] for entry in fleet.diary()][-3:] == ["start", "end", "ended"]


def test_a_thread_left_behind_ends_with_its_process(fleet: Fleet, quick: Process) -> None:
    dispatch_id = fleet.send("quick", "thread")
    fleet.wait_state(dispatch_id, "dead")
    wait_until(lambda: gone(fleet.wait_started(dispatch_id)))


def test_an_async_step_is_not_called_again_after_a_kill(fleet: Fleet) -> None:
    dispatch_id = fleet.send("other", "group one two")
    record = fleet.wait_state(dispatch_id, "completed")
    assert record["attempt"] == "1"
    assert fleet.books.store.client.get(keys.outcome(dispatch_id)) == "did one did two"
    assert sorted(fleet.books.ledger.steps(dispatch_id)) == ["1", "2"]


def test_cancel_now_ends_one_that_waits(fleet: Fleet) -> None:
    dispatch_id = fleet.send("other", "swallow")
    fleet.wait_started(dispatch_id)
    operations.cancel(fleet.books.ledger, fleet.settings, dispatch_id, "enough", now=True)
    assert fleet.books.state(dispatch_id) == "cancelled"
    assert answer(fleet, "other", "say it") == "you said it"
    assert fleet.books.ends(dispatch_id) == ["dispatch_cancelled"]


CONFIG = f"""
[fleet]
data_dir = "data"
hard_limit_margin_s = 2
[agents]
a = {{ runner = "python", python = "{AGENTS}:play", timeout_s = 1, retry = {{ attempts = 1 }} }}
b = {{ runner = "python", python = "{AGENTS}:play", timeout_s = 1, retry = {{ attempts = 1 }} }}
"""


def test_without_a_broker_the_same_holds(tmp_path: Path) -> None:
    """The process that runs kept events, as its keeper starts it."""
    (tmp_path / "fleet.toml").write_text(CONFIG)
    kept = Kept(tmp_path / "data")
    acts = [("a", "hang"), ("a", "say it"), ("a", "thread"), ("a", "say more"), ("b", "swallow")]
    ids = [kept.send(number, to, text=text) for number, (to, text) in enumerate(acts)]
    folder = kept.runtime.spool.folder
    lock = acquire(folder)
    assert lock is not None
    with subprocess.Popen(
        [sys.executable, "-m", "tasks.execution.offline", str(lock)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        pass_fds=[lock],
    ) as process:
        os.close(lock)
        try:
            wait_until(lambda: len(kept.reports()) == len(ids) and not kept.runs.running())
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(START_S) == 0
            assert not is_running(folder)
        finally:
            process.kill()
    reports = kept.reports()
    endings = [reports[one].ending for one in ids]
    assert [one.answer or (one.failure and one.failure.kind) for one in endings] == [
        "Deadline",
        "you said it",
        "Deadline",
        "you said more",
        "TimeLimitExceeded",
    ]
    said = [json.loads(line)["what"] for line in (tmp_path / DIARY).read_text().splitlines()]
    assert said.count("cancelled") == said.count("cleaned up") == 1
