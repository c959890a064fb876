"""Outcomes of a gateway's events go back to it, by a real client and a real worker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.store import keys
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.gateway import Gateway
from tests.fixtures.processes import wait_until
from tests.integration.test_upstream import client, event, mode

#: Longer than a loaded machine takes to confirm, short enough to wait for.
WINDOW_S = 1.5


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as gateway:
        yield gateway


@pytest.fixture
def fleet(tmp_path: Path, gateway: Gateway) -> Iterator[Fleet]:
    tables = {"upstream": {**gateway.table, "window_s": WINDOW_S}}
    agents = {"a": {}, "full": {"max_pending": 1}}
    with fleet_of(tmp_path, agents, sections=tables) as fleet:
        fleet.ready("a")
        client(fleet)
        wait_until(lambda: mode(fleet) == "ws")
        yield fleet
        assert "Traceback" not in "".join(process.said() for process in fleet.processes)


def of(number: int) -> str:
    return keys.dispatch_id(f"gateway\ne{number}\nupstream", "a")


def publish(gateway: Gateway, number: int, text: str) -> str:
    """The id of the dispatch that it becomes."""
    gateway.publish(event(number, text=text, source="gateway"))
    return of(number)


def heard(gateway: Gateway, dispatch_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (way, outcome["type"], outcome["data"])
        for way, outcome in list(gateway.heard)
        if outcome["id"] == f"{dispatch_id}.1.upstream"
    ]


def verified(fleet: Fleet, dispatch_id: str) -> str:
    wait_until(lambda: "verification" in fleet.books.record(dispatch_id))
    return fleet.books.record(dispatch_id)["verification"]


def test_outcomes_go_back_by_whatever_way(fleet: Fleet, gateway: Gateway) -> None:
    good, bad = publish(gateway, 1, "say hello"), publish(gateway, 2, "fail permanently")
    elsewhere = fleet.send("a", "say hello", source="gateway")
    assert (verified(fleet, good), verified(fleet, bad)) == ("ack", "ack")
    ((way, kind, data),) = heard(gateway, good)
    assert (way, kind, data["answer"]) == ("ws", "dispatch_completed", "you said hello")
    assert (data["event_id"], data["source"], data["agent"]) == ("e1", "gateway", "a")
    ((way, kind, data),) = heard(gateway, bad)
    assert (way, kind, data["reason"]) == ("ws", "dispatch_dead", "it failed")
    fleet.wait_state(elsewhere, "completed")
    assert not heard(gateway, elsewhere), "what came by another door does not go there"

    gateway.confirms = False
    silent = publish(gateway, 3, "say nothing")
    assert verified(fleet, silent) == "timeout_fallback"
    gateway.confirm(f"{silent}.1.upstream")
    assert len(heard(gateway, silent)) == 1, "what was sent is not sent again"

    gateway.takes_sockets = False
    gateway.close_sockets()
    wait_until(lambda: mode(fleet) == "poll")
    gateway.answers[:] = [503, 400]
    posted = publish(gateway, 4, "say hello")
    assert verified(fleet, posted) == "ack"
    assert [way for way, _, _ in heard(gateway, posted)] == ["post"] * 3
    assert verified(fleet, silent) == "timeout_fallback", "a late word changes nothing"


def test_a_socket_that_is_not_read_is_not_told_by(fleet: Fleet, gateway: Gateway) -> None:
    """An event that waits for room must not keep a confirmation from being heard."""
    dispatch_id = publish(gateway, 1, "gate open")
    for number in (2, 3):
        gateway.publish(event(number, to="full"))
    fleet.processes[-1].wait_said("wait: ")
    fleet.open_gate("open")
    assert verified(fleet, dispatch_id) == "ack"
    assert [way for way, _, _ in heard(gateway, dispatch_id)] == ["post"]


def test_a_client_that_was_killed_before_it_heard(fleet: Fleet, gateway: Gateway) -> None:
    gateway.confirms = False
    dispatch_id = publish(gateway, 1, "say hello")
    wait_until(lambda: bool(heard(gateway, dispatch_id)))
    fleet.processes[-1].kill()
    gateway.confirms = True
    assert fleet.books.state(dispatch_id) == "announcing"
    # As if its time were over: a real one is longer than a test.
    store = fleet.books.store.client
    store.hset(keys.delivery(dispatch_id), "upstream|until_ms", "0")
    store.zadd("fleet:deliveries:upstream", {f"{dispatch_id} upstream": 0})
    client(fleet)
    assert verified(fleet, dispatch_id) == "ack"
    assert fleet.books.ends(dispatch_id) == ["dispatch_completed"]
    assert len(heard(gateway, dispatch_id)) == 2, "the same id, by which it is known"
