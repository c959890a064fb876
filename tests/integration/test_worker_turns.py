"""Turns, none of which may harm its worker. One fleet of real workers for the whole file."""

import re
from collections.abc import Iterator

import pytest

from fleet.store import keys
from tests.fixtures.fleet import Fleet, Process, fleet_of

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


@pytest.mark.parametrize("error", ["MemoryError", "SystemExit", "KeyboardInterrupt", "ValueError"])
def test_whatever_a_turn_raises_is_an_outcome(error: str, fleet: Fleet, quick: Process) -> None:
    children = quick.children()
    dispatch_id = fleet.send("quick", f"raise {error}")
    record = fleet.wait_state(dispatch_id, "dead")
    assert (record["stage"], record["error_kind"]) == ("tool", error)
    place = r"tests/fixtures/agents\.py:\d+"
    assert re.fullmatch(rf"the agent's code raised {error} at {place}", record["error"])
    assert quick.children() == children


@pytest.mark.parametrize(("error", "did"), [("LockBusy", "did not get"), ("LockLost", "lost")])
def test_a_turn_without_its_lock_says_so(
    error: str, did: str, fleet: Fleet, quick: Process
) -> None:
    record = fleet.wait_state(fleet.send("quick", f"raise {error}"), "dead")
    assert (record["stage"], record["error_kind"], record["retryable"]) == ("lock", error, "1")
    assert record["error"].startswith(f"the agent's code {did} a lock")


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
