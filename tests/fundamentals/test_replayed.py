"""A dead letter can be replayed: the same dispatch, with attempts of its own."""

import pytest

from fleet.errors import FleetError
from tests.fundamentals.fleet import Fleet


def test_a_dead_letter_runs_again_when_it_is_replayed(fleet: Fleet) -> None:
    fleet.start_beat()
    dispatch_id = fleet.send("fragile")
    fleet.wait(dispatch_id, "dead")
    fleet.mend()
    fleet.replay(dispatch_id)
    assert fleet.wait(dispatch_id).answer == "at last"
    assert fleet.outcomes(dispatch_id) == ["dispatch_dead", "dispatch_completed"]


def test_only_a_dead_letter_can_be_replayed(fleet: Fleet) -> None:
    dispatch_id = fleet.send("echo")
    fleet.wait(dispatch_id)
    with pytest.raises(FleetError, match="only a dead one, or a retrying one, can be tried again"):
        fleet.replay(dispatch_id)
    assert fleet.turns() == [dispatch_id]
