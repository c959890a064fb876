"""Turns, none of which may harm its worker. One fleet of real workers for the whole file."""

import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from fleet.ledger import operations
from fleet.store import keys
from tests.fixtures.fleet import Fleet, Process, fleet_of
from tests.fixtures.processes import gone, wait_until

#: Short enough for a test, long enough for a loaded machine to begin a turn in.
SOFT_S = 1.5
MARGIN_S = 3.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    agents = {"quick": {"timeout_s": SOFT_S}, "other": {}}
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


def test_from_the_event_to_the_outcome(fleet: Fleet, quick: Process) -> None:
    dispatch_id = fleet.send("quick", "say good morning")
    record = fleet.wait_state(dispatch_id, "completed")
    assert fleet.books.store.client.get(keys.outcome(dispatch_id)) == "you said good morning"
    assert (record["attempt"], record["losses"]) == ("1", "0")
    mine = [e for e in fleet.books.bus() if e.fields.get("dispatch_id") == dispatch_id]
    assert [e.type for e in mine] == ["dispatch_queued", "dispatch_started", "dispatch_completed"]


def test_in_order_and_one_at_a_time(fleet: Fleet, quick: Process) -> None:
    ids = [fleet.send("quick", "say it") for _ in range(20)]
    fleet.wait_state(ids[-1], "completed")
    turns = [entry for entry in fleet.diary() if entry["dispatch_id"] in ids]
    assert [entry["dispatch_id"] for entry in turns[::2]] == ids
    assert all(one["what"] != other["what"] for one, other in pairwise(turns))


def test_the_soft_limit_ends_a_read_that_blocks(fleet: Fleet, quick: Process) -> None:
    dispatch_id = fleet.send("quick", "hang")
    record = fleet.wait_state(dispatch_id, "dead")
    assert (record["stage"], record["error_kind"], record["attempt"]) == (
        "timeout",
        "Deadline",
        "1",
    )
    assert SOFT_S - 0.2 < float(record["elapsed_ms"]) / 1000 < SOFT_S + MARGIN_S
    assert fleet.books.ends(dispatch_id) == ["dispatch_dead"]


def test_the_hard_limit_ends_a_turn_that_swallows_the_soft_one(
    fleet: Fleet, quick: Process
) -> None:
    (child,) = quick.children()
    dispatch_id = fleet.send("quick", "swallow")
    record = fleet.wait_state(dispatch_id, "dead")
    assert (record["stage"], record["error_kind"]) == ("timeout", "TimeLimitExceeded")
    assert [entry["what"] for entry in fleet.diary("", dispatch_id)][:2] == ["start", "Deadline"]
    assert float(record["elapsed_ms"]) / 1000 < SOFT_S + MARGIN_S + 10
    wait_until(lambda: quick.children() not in ([], [child]))
    told = [e.type for e in fleet.books.bus() if e.fields.get("dispatch_id") == dispatch_id]
    assert told.count("dispatch_failed") == told.count("dispatch_dead") == 1


@pytest.mark.parametrize("error", ["MemoryError", "SystemExit", "KeyboardInterrupt", "ValueError"])
def test_whatever_a_turn_raises_is_an_outcome(error: str, fleet: Fleet, quick: Process) -> None:
    children = quick.children()
    dispatch_id = fleet.send("quick", f"raise {error}")
    record = fleet.wait_state(dispatch_id, "dead")
    assert (record["stage"], record["error_kind"]) == ("tool", error)
    assert record["error"] == f"the agent's code raised {error}"
    assert quick.children() == children


def test_half_a_character_in_an_answer_is_no_reason_to_lose_it(
    fleet: Fleet, quick: Process
) -> None:
    dispatch_id = fleet.send("quick", "odd")
    fleet.wait_state(dispatch_id, "completed")
    assert fleet.books.store.client.get(keys.outcome(dispatch_id)) == "so ? far"
    assert len(fleet.diary("start", dispatch_id)) == 1


def test_a_failure_says_itself_whether_to_try_again(fleet: Fleet, quick: Process) -> None:
    fleet.wait_state(fleet.send("quick", "fail permanently"), "dead")
    again = fleet.wait_state(fleet.send("quick", "fail retryable"), "dead")
    assert (again["retryable"], again["error"]) == ("1", "it failed")


def test_one_that_hangs_never_delays_another(fleet: Fleet, quick: Process) -> None:
    hung = fleet.send("quick", "swallow")
    fleet.wait_started(hung)
    for _ in range(3):
        fleet.wait_state(fleet.send("other", "say it"), "completed")
    assert fleet.books.state(hung) == "active"
    fleet.wait_state(hung, "dead")


def test_a_killed_child_runs_again_before_any_later_one(fleet: Fleet, quick: Process) -> None:
    first = fleet.send("quick", "gate killed")
    fleet.wait_started(first)
    later = [fleet.send("quick", "say it", priority=9) for _ in range(3)]
    killed_at = time.monotonic()
    kill(*quick.children())
    fleet.wait_started(first, times=2)
    fleet.open_gate("killed")
    fleet.wait_state(later[-1], "completed")
    record = fleet.books.record(first)
    assert (record["state"], record["attempt"], record["losses"]) == ("completed", "2", "1")
    assert [entry["dispatch_id"] for entry in fleet.diary("start")][-4:] == [first, *later]
    assert fleet.books.ends(first) == ["dispatch_completed"]
    assert fleet.diary("start", first)[1]["at"] - killed_at < 3


def test_poison_dies_at_the_third_time_and_its_neighbours_run_on(
    fleet: Fleet, quick: Process
) -> None:
    before, poison, after = (fleet.send("quick", text) for text in ("say it", "die", "say it"))
    fleet.wait_state(after, "completed")
    record = fleet.wait_state(poison, "dead")
    assert (record["stage"], record["attempt"], record["losses"]) == ("worker_lost", "3", "3")
    assert fleet.books.ends(poison) == ["dispatch_dead"]
    assert fleet.books.state(before) == "completed"


def test_a_step_is_not_called_again_after_a_kill(fleet: Fleet, quick: Process) -> None:
    """Killed between its two steps: the first one's result is in the journal."""
    dispatch_id = fleet.send("quick", "steps one two")
    wait_until(lambda: bool(fleet.books.ledger.steps(dispatch_id)))
    (child,) = quick.children()
    kill(child)
    fleet.open_gate("one")
    fleet.open_gate("two")
    record = fleet.wait_state(dispatch_id, "completed")
    assert record["attempt"] == "2"
    calls = [entry["what"] for entry in fleet.diary("call", dispatch_id)]
    assert calls == ["call 0", "call 1"]


@pytest.mark.parametrize("tool", ["tool", "tool session"])
def test_cancel_now_kills_the_turn_and_its_tool_and_frees_the_slot(
    fleet: Fleet, quick: Process, tool: str
) -> None:
    (fleet.folder / "tool.pid").unlink(missing_ok=True)
    dispatch_id = fleet.send("other", tool)
    fleet.wait_started(dispatch_id)
    wait_until(
        lambda: (
            (fleet.folder / "tool.pid").exists() and (fleet.folder / "tool.pid").read_text() != ""
        )
    )
    program = int((fleet.folder / "tool.pid").read_text())
    operations.cancel(fleet.books.ledger, fleet.settings, dispatch_id, "enough", now=True)
    assert fleet.books.state(dispatch_id) == "cancelled"
    fleet.wait_state(fleet.send("other", "say it"), "completed")
    wait_until(lambda: gone(program))
    assert fleet.books.ends(dispatch_id) == ["dispatch_cancelled"]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
