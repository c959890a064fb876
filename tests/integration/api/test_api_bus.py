"""Following the bus: every entry once and in order, or a reason to fetch the state again."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fleet.ledger.bus import last_id, parse_entry
from fleet.store import Store, keys, open_store
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import ASIDE, Api, Json, MakeApi, away


def on_the_bus(store: Store, after: str) -> list[Json]:
    """Entries of the stream itself after a place, without `ASIDE`."""
    return [event for event in all_on_the_bus(store, after) if event["type"] not in ASIDE]


def all_on_the_bus(store: Store, after: str) -> list[Json]:
    """Entries of the stream itself after a place."""
    rows: Any = store.client.xrange(keys.BUS, min=f"({after}")
    return [parse_entry(entry_id, raw).to_wire() for entry_id, raw in rows]


def is_resync(event: Json) -> bool:
    return bool(event["type"] == "resync_required")


def test_what_happens_is_told_in_order(api: Api, store: Store) -> None:
    before = last_id(store)
    with api.follow() as bus:
        sent = api.send(to="@reviewers", session="s-1").json()
        events = bus.take(3)
    assert events == on_the_bus(store, before)
    assert [event["type"] for event in events] == ["event_accepted"] + ["dispatch_queued"] * 2
    assert [event["dispatch_id"] for event in events[1:]] == [
        row["dispatch_id"] for row in sent["dispatches"]
    ]
    assert bus.cursor == f"{events[-1]['epoch']}.{events[-1]['id']}"


@pytest.mark.parametrize("with_epoch", [True, False])
def test_a_client_goes_on_exactly_where_it_was(api: Api, store: Store, with_epoch: bool) -> None:
    with api.follow() as bus:
        api.send()
        last = bus.take(2)[-1]
    api.send_many(3)
    cursor = bus.cursor if with_epoch else str(last["id"])
    with api.follow(cursor) as bus:
        api.send()
        assert bus.take(8) == on_the_bus(store, last["id"])
    with api.follow(None, **{"last-event-id": cursor}) as bus:
        assert bus.take(8) == on_the_bus(store, last["id"])


def test_a_browser_s_header_is_newer_than_its_url(api: Api, store: Store) -> None:
    first = last_id(store)
    api.send_many(2)
    middle = on_the_bus(store, first)[1]["id"]
    with api.follow(middle, **{"last-event-id": first}) as bus:
        assert bus.take(2) == on_the_bus(store, middle)


def test_a_thousand_missed_and_two_hundred_live_ones_are_one_row(api: Api, store: Store) -> None:
    start = last_id(store)
    api.send_many(500)
    others = [threading.Thread(target=api.send_many, args=(25,)) for _ in range(4)]
    with api.follow(start) as bus:
        for other in others:
            other.start()
        events = bus.take(1200)
    for other in others:
        other.join()
    assert events == on_the_bus(store, start)


def test_the_beginning_is_a_place_too(make_api: MakeApi, tmp_path: Path) -> None:
    fresh = Valkey(tmp_path).start()
    try:
        api = make_api(fresh.url)
        with api.follow("0-0") as bus:
            api.send()
            first = bus.take(2)
        with api.follow("0-0") as bus:
            assert bus.take(2) == first
        with api.follow("1-0") as bus:  # was never on this stream
            assert bus.next()["reason"] == "epoch_changed"
    finally:
        fresh.kill()


@pytest.mark.parametrize(
    "cursor", ["$", "abc", "1-2-3", "-1", "1-", f"{2**64}-0", "a b.1-0", "\u0661-0", "1" * 5000]
)
def test_a_malformed_place_is_told_and_the_client_goes_on_from_now(
    api: Api, store: Store, cursor: str
) -> None:
    with api.follow(None, **{"last-event-id": cursor}) as bus:
        notice = bus.next()
        assert (notice["type"], notice["reason"]) == ("resync_required", "invalid_last_event_id")
        assert notice["id"] == last_id(store)
        api.send()
        assert bus.take(2) == on_the_bus(store, notice["id"])
    with api.follow(bus.cursor) as bus:  # a cursor from a notice is one like others
        api.send()
        assert not any(map(is_resync, bus.take(2)))


def test_a_place_of_another_life_is_told(api: Api, store: Store) -> None:
    place = last_id(store)
    millis = int(place.partition("-")[0])
    for cursor in (f"0123456789abcdef.{place}", f"{millis + 86_400_000}-0"):
        with api.follow(cursor) as bus:
            assert bus.next()["reason"] == "epoch_changed"


def test_a_place_that_was_trimmed_is_told(api: Api, store: Store) -> None:
    start = last_id(store)
    api.send_many(10)
    entries = on_the_bus(store, start)
    store.client.xtrim(keys.BUS, minid=entries[5]["id"], approximate=False)
    for cursor in (start, entries[4]["id"], "0-0"):
        with api.follow(cursor) as bus:
            assert bus.next()["reason"] == "trimmed"
    with api.follow(entries[5]["id"]) as bus:
        assert bus.take(14) == entries[6:]


def test_too_large_a_gap_is_told(api: Api, store: Store) -> None:
    start = last_id(store)
    api.send_many(2550)
    with api.follow(all_on_the_bus(store, start)[50]["id"]) as bus:
        notice = bus.next()
        assert notice["reason"] == "gap_too_large"
        assert notice["id"] == last_id(store)
    place = all_on_the_bus(store, start)[-5000]["id"]
    with api.follow(place) as bus:
        assert bus.take(4990) == on_the_bus(store, place)[:4990]


def test_only_what_was_asked_for_comes(api: Api) -> None:
    with (
        api.follow(agent="gem") as agent,
        api.follow(type="event_accepted,dispatch_cancelled") as kind,
        api.follow(session="s-2") as session,
    ):
        api.send(to="archie", session="s-1")
        sent = api.send(to="gem", session="s-2").json()["dispatches"][0]["dispatch_id"]
        api.http.post(f"/dispatches/{sent}/cancel")
        assert [event["type"] for event in agent.take(2)] == [
            "dispatch_queued",
            "dispatch_cancelled",
        ]
        assert [event["type"] for event in kind.take(3)][-1] == "dispatch_cancelled"
        assert {event["session"] for event in session.take(2)} == {"s-2"}


@pytest.mark.parametrize("query", ["agent=nobody", "type=nothing", "session=", "type="])
def test_a_wrong_filter_is_named(api: Api, query: str) -> None:
    answer = api.http.get(f"/bus?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["/bus", "/agents", "/dispatches", "/dispatches/x", "/dispatches/x/stream", "/events/x"]
)
def test_a_misspelt_parameter_is_named_instead_of_ignored(api: Api, path: str) -> None:
    answer = api.http.get(f"{path}?agnet=archie")
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"].startswith("`agnet` is not a parameter here; known: ")


def test_a_client_that_hangs_up_is_forgotten_at_once(api: Api) -> None:
    wait_until(lambda: api.clients() == 0)
    with api.follow(), api.follow():
        assert api.clients() == 2
    wait_until(lambda: api.clients() == 0)


@contextmanager
def sleeper(api: Api) -> Iterator[socket.socket]:
    """A client that has asked for the bus and reads nothing."""
    host, port = api.url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect((host, int(port)))
        connection.sendall(b"GET /bus HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(10).startswith(b"HTTP/1.1 2")
        yield connection


def test_a_slow_client_is_told_and_the_others_see_everything(api: Api, store: Store) -> None:
    start = last_id(store)
    with sleeper(api) as slow, api.follow() as quick:
        sender = threading.Thread(target=api.send_many, args=(3000,))
        sender.start()
        assert not any(map(is_resync, quick.take(6000)))
        sender.join()
        health = api.http.get("/health").json()["bus"]
        assert health["max_lag"] > 256
        with slow.makefile("rb") as stream:
            all_told = (json.loads(line[6:]) for line in stream if line.startswith(b"data: "))
            told = (event for event in all_told if event["type"] not in ASIDE)
            events = [next(told)]
            while not is_resync(events[-1]):
                events.append(next(told))
            api.send()
            after = [next(told), next(told)]
    everything = on_the_bus(store, start)
    *seen, notice = events
    assert notice["reason"] == "slow_consumer"
    assert seen == everything[: len(seen)]
    assert after == on_the_bus(store, notice["id"])


def test_a_broker_that_restarts_is_told_and_nothing_is_missed(
    make_api: MakeApi, valkey: Valkey, store: Store
) -> None:
    api = make_api(valkey.url)
    start = last_id(store)
    with api.follow() as bus:
        api.send()
        bus.take(2)
        with away(valkey):
            assert bus.next()["reason"] == "bus_unavailable"
            with api.follow(bus.cursor) as late:
                assert late.next()["reason"] == "bus_unavailable"
                valkey.start()
                wait_until(lambda: api.send().status_code == 202)
                assert bus.take(2) == late.take(2) == on_the_bus(store, start)[2:]
            valkey.kill()


def test_a_wiped_broker_is_told_to_who_follows_and_to_who_comes_back(
    make_api: MakeApi, tmp_path: Path
) -> None:
    fresh = Valkey(tmp_path).start()
    try:
        api = make_api(fresh.url)
        with api.follow() as bus:
            api.send()
            old = bus.take(2)[-1]
            cursor = bus.cursor
            fresh.kill()  # nothing is kept
            assert bus.next()["reason"] == "bus_unavailable"
            fresh.start()
            wait_until(lambda: api.send(id="new").status_code == 202)
            events = bus.until(lambda event: event["type"] == "dispatch_queued" or is_resync(event))
            assert events[-1]["reason"] == "epoch_changed"
            api.send()
            assert {event["epoch"] for event in bus.take(2)} != {old["epoch"]}
        for place in (cursor, old["id"]):
            with api.follow(place) as bus:
                assert bus.next()["reason"] == "epoch_changed"
    finally:
        fresh.kill()


def test_a_flushed_broker_is_noticed_though_nothing_happens(
    make_api: MakeApi, tmp_path: Path
) -> None:
    fresh = Valkey(tmp_path).start()
    try:
        api = make_api(fresh.url)
        with api.follow() as bus:
            api.send()
            bus.take(2)
            with open_store(fresh.url).client as client:
                client.flushall()
            assert bus.next()["reason"] == "epoch_changed"
            api.send()
            assert not any(map(is_resync, bus.take(2)))
    finally:
        fresh.kill()


def test_a_burst_does_not_run_ahead_of_a_client_that_keeps_up(
    make_api: MakeApi, valkey: Valkey
) -> None:
    api = make_api(valkey.url, FLEET_BUS__CLIENT_QUEUE="4")
    with api.follow() as bus:
        api.send_many(100)
        assert not any(map(is_resync, bus.take(200)))


def ws_url(api: Api, query: str = "") -> str:
    return api.url.replace("http://", "ws://") + "/ws" + query


async def receive(socket: Any, count: int) -> list[Json]:
    """The next `count` events, without `ASIDE`."""
    found: list[Json] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            event = json.loads(await socket.recv())
            if event["type"] not in ASIDE:
                found.append(event)
    return found


def test_a_websocket_follows_and_goes_on_alike(api: Api, store: Store) -> None:
    start = last_id(store)

    async def follow() -> None:
        async with connect(ws_url(api)) as live:
            await asyncio.to_thread(api.send_many, 300)
            events = await receive(live, 600)
        assert events == on_the_bus(store, start)
        async with connect(ws_url(api, f"?last-event-id={events[99]['id']}")) as again:
            assert await receive(again, 500) == events[100:]
        async with connect(ws_url(api, "?last-event-id=x")) as wrong:
            assert (await receive(wrong, 1))[0]["reason"] == "invalid_last_event_id"

    asyncio.run(follow())
    wait_until(lambda: api.clients() == 0)


@pytest.mark.parametrize(
    ("query", "origin", "status"),
    [("?agent=nobody", None, 400), ("", "https://elsewhere.example", 403)],
)
def test_a_websocket_is_refused_like_a_request(
    api: Api, query: str, origin: Any, status: int
) -> None:
    async def refused() -> None:
        with pytest.raises(InvalidStatus) as caught:
            await connect(ws_url(api, query), origin=origin)
        assert caught.value.response.status_code == status
        assert json.loads(caught.value.response.body)["status"] == status

    asyncio.run(refused())


def test_who_follows_is_let_go_when_the_api_ends(make_api: MakeApi, valkey: Valkey) -> None:
    api = make_api(valkey.url)

    async def closed() -> int | None:
        async with connect(ws_url(api)) as live:
            api.process.terminate()
            async with asyncio.timeout(5):
                await live.wait_closed()
            return live.close_code

    with api.follow() as bus:
        assert asyncio.run(closed()) == 1012
        with pytest.raises(EOFError):
            bus.next()
