"""Workers that die: a dispatch they ran runs again, before any later one, once."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.fleet import READY, Fleet, Process, fleet_of
from tests.fixtures.processes import gone, no_leftovers, wait_until

__all__ = ["no_leftovers"]

STANDING_BY = "standing by"
#: A takeover that has to wait for it takes two thirds of it at least; one that has not, far less.
LEASE_S = 30.0


@pytest.fixture
def fleet(no_leftovers: str, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, {"a": {}}, lease_ttl_s=LEASE_S) as fleet:
        yield fleet


@pytest.fixture
def pair(fleet: Fleet) -> tuple[Process, Process]:
    """The holder, and one that stands by."""
    # Two of one name on one machine: RabbitMQ refuses the second its queue for remote control.
    both = [fleet.worker("a"), fleet.worker("a", "-n", "another@%h")]
    wait_until(lambda: any(READY in worker.said() for worker in both), 40)
    holder, other = sorted(both, key=lambda worker: READY not in worker.said())
    other.wait_said(STANDING_BY)
    return holder, other


def interrupted(fleet: Fleet) -> tuple[str, list[str]]:
    """A dispatch in mid-turn, and three that wait behind it, in a higher lane."""
    first = fleet.send("a", "beat open")
    fleet.wait_started(first)
    return first, [fleet.send("a", "say it", priority=9) for _ in range(3)]


def assert_ran_again_in_order(fleet: Fleet, first: str, later: list[str]) -> None:
    fleet.wait_started(first, times=2)
    fleet.open_gate("open")
    fleet.wait_state(later[-1], "completed")
    record = fleet.books.record(first)
    assert (record["state"], record["attempt"], record["losses"]) == ("completed", "2", "1")
    assert [turn["dispatch_id"] for turn in fleet.diary("start")] == [first, first, *later]
    assert [turn["attempt"] for turn in fleet.diary("end", first)] == [2]
    beats = [turn["at"] for turn in fleet.diary("beat", first) if turn["attempt"] == 1]
    assert max(beats) < fleet.diary("start", first)[1]["at"], "two turns at once"
    for dispatch_id in (first, *later):
        assert fleet.books.ends(dispatch_id) == ["dispatch_completed"]
    assert len(fleet.books.bus("dispatch_failed")) == 1


@pytest.mark.parametrize("victims", ["worker", "worker and child", "child and worker"])
def test_a_killed_worker(victims: str, fleet: Fleet, pair: tuple[Process, Process]) -> None:
    holder, other = pair
    first, later = interrupted(fleet)
    (child,) = holder.children()
    killed_at = time.monotonic()
    for victim in victims.split(" and "):
        os.kill(holder.pid if victim == "worker" else child, signal.SIGKILL)
    assert_ran_again_in_order(fleet, first, later)
    assert gone(child)
    assert not holder.alive
    assert other.alive
    # Its connection is gone, so nobody waits for its lease to run out.
    assert fleet.diary("start", first)[1]["at"] - killed_at < LEASE_S / 2


def test_a_worker_that_is_started_after_the_death(fleet: Fleet) -> None:
    (worker,) = fleet.ready("a")
    first, later = interrupted(fleet)
    worker.kill()
    fleet.ready("a")
    assert_ran_again_in_order(fleet, first, later)
