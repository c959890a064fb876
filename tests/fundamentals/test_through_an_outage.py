"""While the broker is away, events are accepted, kept on disk, and run here: each of them once."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from tests.e2e.running import HEAD, Place, place
from tests.fixtures.processes import wait_until
from tests.fundamentals.fleet import PATIENCE_S

#: Kept events run here once the workers cannot run them any more: when their leases ran out.
CONFIG = (
    HEAD.replace("[fleet]", "[fleet]\nlease_ttl_s = 2")
    + """
[breaker]
failure_threshold = 1
reset_timeout_s = 1
[agents.echo]
runner = "python"
python = "my_agents:echo"
[agents.frugal]
runner = "python"
python = "my_agents:echo"
budget = { tokens_per_day = 1000 }
[routes]
default = ["echo"]
"""
)
CODE = """
def echo(turn):
    with open("diary", "a") as diary:
        diary.write(turn.text + "\\n")
    return f"You said: {turn.text}"
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Place]:
    """`fleet up` with its own broker, and the command line beside it."""
    (tmp_path / "my_agents.py").write_text(CODE)
    with place(tmp_path, CONFIG) as found:
        found.up()
        yield found
        assert found.stop() == 0


@contextmanager
def broker_away(fleet: Place) -> Iterator[None]:
    """Stop the broker as a hung machine does."""
    endpoint = fleet.folder / ".fleet" / "broker" / "endpoint.json"
    broker = psutil.Process(json.loads(endpoint.read_text())["pid"])
    broker.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        broker.send_signal(signal.SIGCONT)


def wait(fleet: Place, dispatch_id: str) -> None:
    """Return once the ledger has the dispatch as completed; the breaker may still be open."""

    def completed() -> bool:
        answer = fleet.fleet("queue", "inspect", dispatch_id, "--json")
        return answer.code == 0 and answer.json["state"] == "completed"

    wait_until(completed, PATIENCE_S)


def test_events_are_accepted_and_done_while_the_broker_is_away(fleet: Place) -> None:
    assert fleet.outcome("before")["answer"] == "You said: before"
    with broker_away(fleet):
        # The event that notices the outage may have reached the ledger, so it waits for it. An
        # agent with a budget waits too: only the ledger knows what is left of the budget.
        waiting = [fleet.send("notices the outage"), fleet.send("waits", "--to", "frugal")]
        during = fleet.outcome("during")
        assert (during["state"], during["answer"]) == ("completed", "You said: during")
        health = fleet.fleet("health", "--json")
        assert health.code == 1
        assert health.json["g4"]["direct"] == {"running": 0, "ended": 1}
    for dispatch_id in (*waiting, during["dispatch_id"]):
        wait(fleet, dispatch_id)
    done = (fleet.folder / "diary").read_text().splitlines()
    assert sorted(done) == ["before", "during", "notices the outage", "waits"]


def test_the_bus_has_the_whole_story_of_an_event_that_ran_in_an_outage(fleet: Place) -> None:
    with broker_away(fleet):
        fleet.send("notices the outage")
        during = fleet.outcome("during")["dispatch_id"]
    wait(fleet, during)
    events = [json.loads(line) for line in fleet.fleet("events", "--json").out.splitlines()]
    assert [event["type"] for event in events if during in json.dumps(event)] == [
        *("dispatch_queued", "dispatch_started", "dispatch_completed")
    ]
