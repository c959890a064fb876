"""A worker that is asked to stop finishes its turn or hands it back; nothing is lost or counted."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.processes import no_leftovers, wait_until

__all__ = ["no_leftovers"]

DRAIN_S = 1.0


@pytest.fixture
def fleet(no_leftovers: str, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, {"a": {}}, drain_s=DRAIN_S) as fleet:
        yield fleet


def test_it_finishes_a_short_turn_and_begins_no_other(fleet: Fleet) -> None:
    (worker,) = fleet.ready("a")
    short, later = fleet.send("a", "gate open"), fleet.send("a", "say it")
    fleet.wait_started(short)
    worker.signal(signal.SIGTERM)
    worker.wait_said("Warm shutdown")
    fleet.open_gate("open")
    assert worker.wait() == 0
    assert fleet.books.state(short) == "completed"
    assert fleet.books.state(later) == "queued"
    assert fleet.books.lease("a").acquire(), "the lease is free"
    assert fleet.books.bus("agent_offline")[-1].fields["reason"] == "stopped"


def test_it_hands_back_a_long_turn(fleet: Fleet) -> None:
    """The attempt does not count, and the dispatch stays the next one."""
    (worker,) = fleet.ready("a")
    long = fleet.send("a", "beat open")
    fleet.wait_started(long)
    later = fleet.send("a", "say it", priority=9)
    asked_at = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert DRAIN_S <= time.monotonic() - asked_at < DRAIN_S + 15
    record = fleet.books.record(long)
    assert (record["state"], record["losses"], record["attempt_base"]) == ("queued", "0", "1")
    fleet.open_gate("open")
    fleet.ready("a")
    fleet.wait_state(later, "completed")
    assert [turn["dispatch_id"] for turn in fleet.diary("start")] == [long, long, later]
    assert fleet.books.ends(long) == ["dispatch_completed"]
    assert not fleet.books.bus("dispatch_failed")


def test_a_journalled_step_of_a_turn_that_was_handed_back_is_not_repeated(fleet: Fleet) -> None:
    (worker,) = fleet.ready("a")
    dispatch_id = fleet.send("a", "steps one two")
    wait_until(lambda: bool(fleet.books.ledger.steps(dispatch_id)))
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    fleet.open_gate("one")
    fleet.open_gate("two")
    fleet.ready("a")
    fleet.wait_state(dispatch_id, "completed")
    calls = [entry["what"] for entry in fleet.diary("call", dispatch_id)]
    assert calls == ["call 0", "call 1"]


def test_an_idle_one_ends_at_once(fleet: Fleet) -> None:
    (worker,) = fleet.ready("a")
    asked_at = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert time.monotonic() - asked_at < DRAIN_S + 10


def test_one_that_stands_by_ends_too(fleet: Fleet) -> None:
    fleet.ready("a")
    second = fleet.worker("a", "-n", "another@%h")
    second.wait_said("standing by")
    second.signal(signal.SIGTERM)
    second.wait()
    fleet.wait_state(fleet.send("a", "say it"), "completed")
