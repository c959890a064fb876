"""The same event twice is one event, with one turn and one outcome."""

import pytest

from fleet.errors import FleetError
from tests.fundamentals.fleet import Fleet


def test_an_event_that_is_sent_twice_runs_once(fleet: Fleet) -> None:
    first = fleet.send("echo", "Pay Ada.", id="pay-1", source="shop")
    again = fleet.send("echo", "Pay Ada.", id="pay-1", source="shop")
    assert first == again
    after = fleet.send("echo", "another")
    fleet.wait(after)
    assert fleet.turns() == [first, after]
    assert fleet.outcomes(first) == ["dispatch_completed"]


def test_an_event_that_is_sent_again_after_its_end_does_not_run_again(fleet: Fleet) -> None:
    first = fleet.send("echo", id="pay-1")
    fleet.wait(first)
    fleet.send("echo", id="pay-1")
    after = fleet.send("echo")
    fleet.wait(after)
    assert fleet.turns() == [first, after]


def test_other_content_under_a_used_id_is_refused(fleet: Fleet) -> None:
    first = fleet.send("echo", "Pay Ada.", id="pay-1")
    with pytest.raises(FleetError, match="other content"):
        fleet.send("echo", "Pay Bob.", id="pay-1")
    assert fleet.wait(first).answer == "You said: Pay Ada."
