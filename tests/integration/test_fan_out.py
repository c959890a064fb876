"""One event for several agents, with real workers that fail, die and are told to stop."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.config.routes import RoutesConfig
from fleet.ledger import operations, parents
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.ledger import Books
from tests.fixtures.processes import no_leftovers, wait_until

__all__ = ["no_leftovers"]

TO = ["a", "b", "c"]


@pytest.fixture
def fleet(no_leftovers: str, tmp_path: Path) -> Iterator[Fleet]:
    """Nobody works for c."""
    with fleet_of(tmp_path, {"a": {}, "b": {}, "c": {}}) as fleet:
        fleet.ready("a", "b")
        yield fleet


def event(fleet: Fleet, event_id: str) -> dict[str, Any]:
    found = parents.get(fleet.books.store, event_id)
    assert found is not None
    return found


def states(fleet: Fleet, event_id: str) -> dict[str, str]:
    return {one["agent"]: one["state"] for one in event(fleet, event_id)["members"]}


def test_each_member_ends_in_its_own_way_and_the_event_with_the_last(fleet: Fleet) -> None:
    text = "each a:die_once b:fail:permanent"
    first, second, third = ids = fleet.books.accept(TO, text, id="1")
    fleet.wait_state(first, "completed")
    fleet.wait_state(second, "dead")
    assert fleet.books.accept(TO, text, id="1") == ids  # a duplicate changes nothing
    assert (event(fleet, "1")["state"], states(fleet, "1")["c"]) == ("open", "queued")
    operations.cancel(fleet.books.ledger, fleet.settings, third, "enough")
    found = event(fleet, "1")
    assert found["state"] == "ended"
    assert states(fleet, "1") == {"a": "completed", "b": "dead", "c": "cancelled"}
    assert found["members"][0]["attempt"] == 2
    assert found["members"][1]["error"] == "it failed"
    assert [fleet.books.ends(one) for one in ids] == [
        ["dispatch_completed"],
        ["dispatch_dead"],
        ["dispatch_cancelled"],
    ]


def test_a_death_ends_the_others_where_that_is_wished(fleet: Fleet) -> None:
    routes = RoutesConfig(on_member_failure="cancel")
    strict = Books(fleet.books.store, fleet.settings.model_copy(update={"routes": routes}))
    # b's turn kills its own process, each time it is tried.
    running, _, waiting = strict.accept(TO, "each a:steps:one:two b:die", id="1")
    fleet.wait_started(running)
    wait_until(lambda: states(fleet, "1")["b"] == "dead", 30)
    assert (states(fleet, "1")["c"], event(fleet, "1")["state"]) == ("cancelled", "open")
    assert strict.ends(waiting) == ["dispatch_cancelled"]
    fleet.open_gate("one")
    fleet.wait_state(running, "cancelled")
    assert event(fleet, "1")["state"] == "ended"
    assert not fleet.diary("end", running)
