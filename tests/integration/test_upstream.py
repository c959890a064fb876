"""`fleet upstream` as a process, against a gateway that closes, falls silent and repeats itself."""

import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import Fenced
from fleet.ops.health import document
from fleet.runtime import Runtime
from fleet.store import Store, keys
from fleet.upstream.cursor_store import CursorStore
from fleet.upstream.gateway_address import GatewayAddress as Address
from routing.event import EVENT_BYTES_MAX
from tests.fixtures.fleet import Fleet, Process, fleet_of
from tests.fixtures.gateway import TOKEN, Gateway
from tests.fixtures.processes import wait_until

SECRET = "the-text-4711"


def client(fleet: Fleet) -> Process:
    return fleet.start("upstream", sys.executable, "-m", "fleet", "upstream")


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"e{number}", "to": "a", "text": f"say {SECRET}", **fields}


def accepted(fleet: Fleet) -> list[str]:
    """The ids on the bus, in order: an event that ran twice would be there twice."""
    return [entry.fields["event_id"] for entry in fleet.books.bus("event_accepted")]


def mode(fleet: Fleet) -> str:
    runtime = Runtime(fleet.settings)
    runtime.store = fleet.books.store
    health = document(runtime)
    return str(health["g4"]["intake"])


def wait_accepted(fleet: Fleet, count: int) -> None:
    wait_until(lambda: len(accepted(fleet)) >= count, 40)


@contextmanager
def fleet_with(
    folder: Path, gateway: Gateway, *, durable: bool = False, **agent: Any
) -> Iterator[Fleet]:
    tables = {"upstream": gateway.table}
    with fleet_of(folder, {"a": agent}, durable=durable, sections=tables) as fleet:
        yield fleet
        said = "".join(process.said() for process in fleet.processes)
        assert SECRET not in said
        assert TOKEN not in said
        assert "Traceback" not in said


def test_each_event_comes_once_by_whatever_way(tmp_path: Path) -> None:
    with Gateway(repeats=3) as gateway, fleet_with(tmp_path, gateway) as fleet:
        first = client(fleet)
        gateway.publish(*(event(number) for number in range(5)))
        wait_accepted(fleet, 5)
        wait_until(lambda: mode(fleet) == "ws")
        second = client(fleet)
        second.wait_said("standing by")

        gateway.takes_sockets = False
        gateway.close_sockets()
        wait_until(lambda: mode(fleet) == "poll")
        gateway.publish(*(event(number) for number in range(5, 10)))
        wait_accepted(fleet, 10)

        gateway.takes_sockets = True
        wait_until(lambda: mode(fleet) == "ws")
        gateway.publish(*(event(number) for number in range(10, 60)))
        wait_accepted(fleet, 15)
        first.kill()
        gateway.publish(*(event(number) for number in range(60, 65)))
        second.wait_said("this client takes the events")
        wait_accepted(fleet, 65)

        gateway.publish(event(65))
        wait_accepted(fleet, 66)
        assert Counter(accepted(fleet)) == Counter(f"e{number}" for number in range(66))
        assert gateway.sockets == 1
        assert gateway.asked[0] == ("/ws", "")
        assert gateway.asked[-1][1]
        cursor = fleet.books.store.client.hget(keys.upstream(digest(fleet)), "cursor")
        assert cursor == "e65"


def digest(fleet: Fleet) -> str:
    address = Address.of(fleet.settings.upstream)
    assert address is not None
    return address.digest


def test_a_silent_socket_is_left_for_polling(tmp_path: Path) -> None:
    with Gateway() as gateway, fleet_with(tmp_path, gateway) as fleet:
        running = client(fleet)
        wait_until(lambda: mode(fleet) == "ws")
        gateway.takes_sockets = False
        gateway.fall_silent()
        wait_until(lambda: mode(fleet) == "poll")
        gateway.publish(event(1))
        wait_accepted(fleet, 1)
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
        assert mode(fleet) == "http"


def test_a_socket_that_answers_pings_and_brings_nothing_is_polled_beside(tmp_path: Path) -> None:
    with Gateway() as gateway, fleet_with(tmp_path, gateway) as fleet:
        client(fleet)
        gateway.publish(event(1))
        wait_accepted(fleet, 1)
        assert mode(fleet) == "ws"
        assert "/events" not in dict(gateway.asked)
        gateway.deaf = True
        gateway.publish(event(2), event(3))
        wait_accepted(fleet, 3)
        wait_until(lambda: mode(fleet) == "poll")
        assert gateway.sockets == 1
        gateway.deaf = False
        gateway.publish(event(4))
        wait_until(lambda: mode(fleet) == "ws")
        wait_accepted(fleet, 4)


def test_what_can_never_be_accepted_is_counted_and_passed(tmp_path: Path) -> None:
    with Gateway() as gateway, fleet_with(tmp_path, gateway) as fleet:
        client(fleet)
        nameless = {"to": "a", "text": SECRET}
        strange = event(2, to="nobody")
        deep = '{"id": "deep", "to": "a", "text": "x", "data": ' + "[" * 900 + "]" * 900 + "}"
        twice = '{"id": "twice", "to": "a", "text": "x", "to": "b"}'
        inside = '{"id": "inside", "to": "a", "text": "x", "data": {"k": 1, "k": 2}}'
        huge = event(2, text="x" * EVENT_BYTES_MAX)
        gateway.publish("{" + SECRET, nameless, nameless, [event(1)], strange, deep)
        gateway.publish(twice, inside, "[" * 100_000, huge, event(3))
        wait_accepted(fleet, 1)
        assert accepted(fleet) == ["e3"]
        dropped = fleet.books.bus("delivery_dropped")
        names = [entry.fields["name"] for entry in dropped]
        assert names == ["", "", "", "e2", "deep", "twice", "inside", "", "e2"]
        assert "'k' stands twice" in dropped[6].fields["reason"]
        assert SECRET not in str(dropped)


def test_it_cannot_speak_in_the_fleets_own_name_nor_change_what_it_sent(tmp_path: Path) -> None:
    with Gateway() as gateway, fleet_with(tmp_path, gateway) as fleet:
        client(fleet)
        gateway.publish(event(1), event(2, source="agent:a"), event(1, text="other"), event(3))
        wait_accepted(fleet, 2)
        assert accepted(fleet) == ["e1", "e3"]
        dropped = [entry.fields for entry in fleet.books.bus("delivery_dropped")]
        assert [fields["name"] for fields in dropped] == ["e2", "e1"]
        assert "must not begin with" in dropped[0]["reason"]
        assert "other content" in dropped[1]["reason"]


def test_a_full_agent_makes_events_wait(tmp_path: Path) -> None:
    with Gateway() as gateway, fleet_with(tmp_path, gateway, max_pending=2) as fleet:
        running = client(fleet)
        gateway.publish(*(event(number) for number in range(4)))
        running.wait_said("wait: ")
        assert accepted(fleet) == ["e0", "e1"]
        lease = fleet.books.held("a")
        for count in (3, 4):
            fleet.books.complete(fleet.books.claimed(lease))
            wait_accepted(fleet, count)
        assert accepted(fleet) == ["e0", "e1", "e2", "e3"]
        assert not fleet.books.bus("delivery_dropped")


def test_a_store_that_was_away_costs_no_event(tmp_path: Path) -> None:
    with Gateway(repeats=1) as gateway, fleet_with(tmp_path, gateway, durable=True) as fleet:
        client(fleet)
        gateway.publish(event(0))
        wait_accepted(fleet, 1)
        fleet.server.kill()
        gateway.publish(*(event(number) for number in range(1, 6)))
        fleet.processes[0].wait_said("was lost")
        fleet.server.start()
        wait_accepted(fleet, 6)
        gateway.publish(event(6))
        wait_accepted(fleet, 7)
        assert Counter(accepted(fleet)) == Counter(f"e{number}" for number in range(7))


def test_a_client_that_lost_its_place_changes_nothing(store: Store) -> None:
    old, new = CursorStore(store, "d", 1), CursorStore(store, "d", 2)
    old.move("e1")
    old.record_mode("poll")
    new.record_mode("ws")
    for late in (
        lambda: old.move("e0"),
        lambda: old.record_mode("poll"),
        lambda: old.record_mode(None),
    ):
        with pytest.raises(Fenced):
            late()
    assert new.cursor() == "e1"
    assert store.client.get(keys.UPSTREAM_MODE) == "ws"
    assert store.client.pttl(keys.UPSTREAM_MODE) > 0
    new.record_mode(None)
    assert store.client.get(keys.UPSTREAM_MODE) is None
