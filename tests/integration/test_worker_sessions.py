"""Sessions with real workers: interrupted turns, coalesced events, and refusals."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.store import keys
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.ledger import history_key
from tests.fixtures.processes import wait_until

WINDOW_S = 0.3


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    agents = {"one": {}, "two": {}, "chatty": {"on_busy": "interrupt"}}
    more = {"patient": {"on_busy": "coalesce"}, "single": {"on_busy": "reject"}}
    folder = tmp_path_factory.mktemp("fleet")
    with fleet_of(
        folder, {**agents, **more}, sections={"sessions": {"coalesce_window_s": WINDOW_S}}
    ) as fleet:
        fleet.ready("one", "two", "chatty", "patient")
        yield fleet


def test_an_interrupted_turn_is_killed_and_the_newer_event_is_next(fleet: Fleet) -> None:
    first = fleet.send("chatty", "steps now never", session="s")
    fleet.wait_started(first)
    other = fleet.send("chatty", "say later", session="t")
    wait_until(lambda: bool(fleet.books.ledger.steps(first)))
    second = fleet.send("chatty", "say it", session="s")
    assert fleet.books.state(first) == "cancelled"
    fleet.wait_state(second, "completed")
    fleet.wait_state(other, "completed")
    assert not fleet.diary("end", first)
    assert list(fleet.books.ledger.steps(first)) == ["1"]
    assert fleet.books.ends(first) == ["dispatch_cancelled"]
    said = fleet.books.store.client.lrange(history_key("s"), 0, -1)
    assert len(said) == 2


def test_coalesced_events_are_one_turn_of_a_real_worker(fleet: Fleet) -> None:
    ids = [fleet.send("patient", f"say {word}", session="s9") for word in ("one", "two")]

    def ended() -> bool:
        fleet.books.reclaim()  # beat's part
        return fleet.books.state(ids[1]) == "completed"

    wait_until(ended, 30)
    assert len(fleet.diary("start", ids[0])) == 1
    assert not fleet.diary("", ids[1])
    answers = {fleet.books.store.client.get(keys.outcome(dispatch_id)) for dispatch_id in ids}
    assert answers == {"you said one say two"}


def test_the_command_line_is_refused_in_one_sentence(fleet: Fleet) -> None:
    command = str(Path(sys.executable).with_name("fleet"))
    fleet.send("single", "say it", session="busy")
    refused = fleet.start("send", command, "send", "again", "--to", "single", "--session", "busy")
    assert refused.wait(40) == 1
    assert refused.said() == (
        "fleet: The session is busy, and single takes one event of it at a time: send it later.\n"
    )
