"""An interactive program as an agent, in a real worker and a real terminal."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.ledger import operations, views
from fleet.store import keys
from tests.fixtures import interactive
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.processes import gone, wait_until

TALK = [sys.executable, str(Path(interactive.__file__)), "lines"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    common: dict[str, Any] = {
        "runner": "pty",
        "command": TALK,
        "terminal": {"ready": "ready> $", "echo_s": 1.0},
        "max_output_bytes": 100_000,
    }
    agents = {
        "talk": {**common, "timeout_s": 30},
        "quick": {**common, "timeout_s": 2},
    }
    with fleet_of(tmp_path_factory.mktemp("fleet"), agents, hard_limit_margin_s=20) as fleet:
        fleet.ready("talk", "quick")
        yield fleet


def answer(fleet: Fleet, text: str, agent: str = "talk") -> str:
    dispatch_id = fleet.send(agent, text)
    fleet.wait_state(dispatch_id, "completed")
    return str(fleet.books.store.client.get(keys.outcome(dispatch_id)))


def failure(fleet: Fleet, agent: str, text: str) -> tuple[str, str]:
    record = fleet.wait_state(fleet.send(agent, text), "dead")
    return record["stage"], record["error"]


def typed(fleet: Fleet, text: str) -> list[int]:
    """The processes that were given this text."""
    log = fleet.folder / interactive.TYPED
    entries = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
    return [entry["pid"] for entry in entries if entry["text"] == text]


def pids_in(path: Path) -> list[int]:
    wait_until(lambda: path.exists() and path.read_text() != "", 20)
    return [int(word) for word in path.read_text().split()]


def verified(fleet: Fleet, dispatch_id: str) -> list[str]:
    return [
        entry.fields["verification"]
        for entry in fleet.books.bus("delivery_verified")
        if entry.fields["dispatch_id"] == dispatch_id
    ]


def test_one_program_stays_over_events_and_each_is_verified(fleet: Fleet) -> None:
    first, second = fleet.send("talk", "count"), fleet.send("talk", "count")
    for dispatch_id, count in ((first, "1"), (second, "2")):
        assert fleet.wait_state(dispatch_id, "completed")["injected"] == "echo"
        said = str(fleet.books.store.client.get(keys.outcome(dispatch_id)))
        assert said.split(" in ")[0] == count
        assert verified(fleet, dispatch_id) == ["echo"]
    assert len(set(typed(fleet, "count"))) == 1
    seen = views.get(fleet.books.store, first)
    assert seen
    assert (seen["injected"], [step["name"] for step in seen["steps"]]) == (
        "echo",
        ["terminal", "inject"],
    )


def test_what_is_not_echoed_is_completed_unverified_and_typed_once(fleet: Fleet) -> None:
    answer(fleet, "quiet")
    try:
        dispatch_id = fleet.send("talk", "measure something")
        record = fleet.wait_state(dispatch_id, "completed")
        said = fleet.books.store.client.get(keys.outcome(dispatch_id))
        assert (record["injected"], said) == ("timeout_fallback", "MEASURE: 9")
        assert verified(fleet, dispatch_id) == ["timeout_fallback"]
        assert len(typed(fleet, "measure something")) == 1
        totals: Any = fleet.books.store.client.hgetall("fleet:totals")
        assert totals["talk|injected.timeout_fallback"] >= "1"
    finally:
        answer(fleet, "quiet on")


def test_no_event_sends_more_than_text(fleet: Fleet) -> None:
    pid = answer(fleet, "count").split(" in ")[1]
    assert answer(fleet, "say a\x03b\x04\x1b[A\x1a c\x9b6n\r\nnext\ttab\x7f") == "SAY: 20"
    assert typed(fleet, "say ab[A c6n next    tab") == [int(pid)]
    assert answer(fleet, "count").split(" in ")[1] == pid


def test_a_program_that_was_killed_is_started_anew_by_the_next_turn(fleet: Fleet) -> None:
    pid = int(answer(fleet, "count").split(" in ")[1])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(pid), 10)
    assert answer(fleet, "count").startswith("1 in ")
    assert "is ended: it ended with SIGKILL" in fleet.processes[0].said()


def test_a_program_that_dies_of_an_event_fails_its_turn(fleet: Fleet) -> None:
    record = fleet.wait_state(fleet.send("talk", "die 3"), "dead")
    assert (record["stage"], record["error"]) == (
        "tool",
        "the program failed: it ended with exit code 3 while it had the event",
    )
    assert "die 3" in fleet.last_words(record["id"])
    assert answer(fleet, "count").startswith("1 in ")


def test_a_program_that_never_stops_printing_is_cut_off(fleet: Fleet) -> None:
    assert failure(fleet, "talk", "flood") == (
        "tool",
        "the program failed: it printed more than 100000 bytes (max_output_bytes)",
    )
    (pid,) = typed(fleet, "flood")
    assert gone(pid)


def test_a_line_that_a_terminal_cannot_hold_is_refused(fleet: Fleet) -> None:
    pid = answer(fleet, "count").split(" in ")[1]
    stage, reason = failure(fleet, "talk", "say " + "y" * 5000)
    assert (stage, reason.startswith("the event is 5004 bytes on one line")) == ("tool", True)
    assert answer(fleet, "say " + "y" * 4000) == "SAY: 4000"
    assert answer(fleet, "count").split(" in ")[1] == pid


def test_the_time_limit_interrupts_it_and_another_is_asked_again(fleet: Fleet) -> None:
    pid = int(answer(fleet, "count", "quick").split(" in ")[1])
    dispatch_id = fleet.send("quick", "await second")
    record = fleet.wait_state(dispatch_id, "dead")
    assert (record["stage"], record["error"]) == (
        "timeout",
        "the turn passed its time limit: the program was interrupted (Ctrl-C) and is ready again",
    )
    assert answer(fleet, "count", "quick") == f"2 in {pid}"
    fleet.open_gate("second")
    operations.replay(fleet.books.ledger, fleet.settings, dispatch_id)
    fleet.wait_state(dispatch_id, "completed")
    first, second = typed(fleet, "await second")
    assert (first == pid, second != pid) == (True, True), "never twice into one terminal"
    assert verified(fleet, dispatch_id) == ["echo", "echo"]


def test_a_program_that_heeds_no_signal_is_killed_with_all_it_started(
    fleet: Fleet, tmp_path: Path
) -> None:
    note = tmp_path / "pids"
    stage, reason = failure(fleet, "quick", f"stubborn {note}")
    assert stage == "timeout"
    assert reason.endswith("the program did not become ready again after Ctrl-C and was killed")
    wait_until(lambda: all(gone(pid) for pid in pids_in(note)), 10)
    assert answer(fleet, "count", "quick").startswith("1 in ")


def test_cancelling_at_once_ends_the_program(fleet: Fleet, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    left = int(answer(fleet, "leave").split()[1])
    assert not gone(left), "what it started may be meant to stay"
    dispatch_id = fleet.send("talk", f"stubborn {note}")
    pids = [left, *pids_in(note)]
    operations.cancel(fleet.books.ledger, fleet.settings, dispatch_id, "enough", now=True)
    fleet.wait_state(dispatch_id, "cancelled")
    wait_until(lambda: all(map(gone, pids)), 20)


def test_a_killed_worker_leaves_nothing_and_the_event_completes(fleet: Fleet) -> None:
    worker = fleet.processes[0]
    dispatch_id = fleet.send("talk", "await gate")
    wait_until(lambda: len(typed(fleet, "await gate")) == 1)
    (first,) = typed(fleet, "await gate")
    wait_until(lambda: verified(fleet, dispatch_id) == ["echo"])
    worker.kill()
    wait_until(lambda: gone(first), 10)
    (successor,) = fleet.ready("talk")
    wait_until(lambda: len(typed(fleet, "await gate")) == 2)
    fleet.open_gate("gate")
    record = fleet.wait_state(dispatch_id, "completed")
    assert (record["attempt"], record["injected"]) == ("2", "echo")
    assert verified(fleet, dispatch_id) == ["echo", "echo"]
    second = typed(fleet, "await gate")[1]
    successor.signal(signal.SIGTERM)
    successor.wait()
    wait_until(lambda: gone(second), 10)
