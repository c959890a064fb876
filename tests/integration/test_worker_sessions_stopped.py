"""A session goes on when the turn before is dead, also one that was ended from outside."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.ledger import operations
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.processes import gone, no_leftovers, wait_until

__all__ = ["no_leftovers"]


@pytest.fixture
def fleet(no_leftovers: str, tmp_path: Path) -> Iterator[Fleet]:
    agents = {"a": {}, "b": {}, "brief": {"timeout_s": 1}}
    with fleet_of(tmp_path, agents, lease_ttl_s=30.0, hard_limit_margin_s=1) as fleet:
        yield fleet


def beats(fleet: Fleet, dispatch_id: str) -> list[float]:
    return [turn["at"] for turn in fleet.diary("beat", dispatch_id)]


def assert_one_after_the_other(fleet: Fleet, first: str, second: str) -> None:
    fleet.wait_state(second, "completed")
    (start,) = fleet.diary("start", second)
    assert max(beats(fleet, first)) < start["at"], "two turns of a session at once"


def test_one_that_is_cancelled_now(fleet: Fleet) -> None:
    """Its worker is stopped, and hears of it late."""
    holder, _ = fleet.ready("a", "b")
    first = fleet.send("a", "stubborn", session="s")
    second = fleet.send("b", "say it", session="s")
    fleet.wait_started(first)
    holder.signal(signal.SIGSTOP)
    operations.cancel(fleet.books.ledger, fleet.settings, first, "enough", now=True)
    assert fleet.books.ends(first) == ["dispatch_cancelled"]
    so_far = len(beats(fleet, first))
    wait_until(lambda: len(beats(fleet, first)) > so_far + 20)
    assert not fleet.diary("start", second)
    holder.signal(signal.SIGCONT)
    assert_one_after_the_other(fleet, first, second)


def test_one_that_is_killed_at_its_hard_limit(fleet: Fleet) -> None:
    fleet.ready("brief", "b")
    first = fleet.send("brief", "stubborn", session="s")
    second = fleet.send("b", "say it", session="s")
    child = fleet.wait_started(first)
    fleet.wait_state(first, "dead")
    assert gone(child)
    assert_one_after_the_other(fleet, first, second)
