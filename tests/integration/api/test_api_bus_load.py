"""The bus under load: long replays, crowds, clients that stop reading, a flush."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from websockets.asyncio.client import connect

from fleet.ledger.bus import last_id
from fleet.store import Store, keys, open_store
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api, Json, MakeApi
from tests.integration.api.test_api_bus import is_resync, on_the_bus, receive, ws_url

#: With room for an alert, because from 5,001 missed ones on nothing is replayed.
MISSED, LIVE = 4990, 500


@contextmanager
def sending(api: Api, count: int) -> Iterator[None]:
    """`count` events, which are twice as many bus entries, from five senders at once."""
    senders = [threading.Thread(target=api.send_many, args=(count // 5,)) for _ in range(5)]
    for sender in senders:
        sender.start()
    yield
    for sender in senders:
        sender.join()


def test_five_thousand_missed_and_five_hundred_live_ones_are_one_row(
    api: Api, store: Store
) -> None:
    start = last_id(store)
    api.send_many(MISSED // 2)

    async def follow_ws() -> list[Json]:
        async with connect(ws_url(api, f"?last-event-id={start}")) as live:
            with sending(api, LIVE // 2):
                return await receive(live, MISSED + LIVE)

    with api.follow(start) as bus, sending(api, LIVE // 2):
        events = bus.take(MISSED + LIVE)
    assert events == on_the_bus(store, start)
    start = events[LIVE - 1]["id"]  # as far behind again
    events = asyncio.run(follow_ws())
    assert events == on_the_bus(store, start)


def test_a_thousand_come_back_at_once(api: Api, store: Store) -> None:
    start = last_id(store)
    api.send_many(10)
    host, port = api.url.removeprefix("http://").split(":")
    request = f"GET /bus HTTP/1.1\r\nHost: {host}\r\nLast-Event-ID: {start}\r\n\r\n".encode()
    wanted = [str(event["id"]) for event in on_the_bus(store, start)]

    async def one(all_here: asyncio.Barrier) -> list[str]:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        ids: list[str] = []
        while len(ids) < len(wanted) + 2:
            line = await reader.readline()
            assert line, "the stream ended"
            if line.startswith(b"data: ") and b'"type":"alert"' not in line:
                ids.append(json.loads(line[6:])["id"])
                if len(ids) == len(wanted):
                    await all_here.wait()
        writer.close()
        return ids

    async def crowd() -> list[list[str]]:
        all_here = asyncio.Barrier(1001)
        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            clients = [group.create_task(one(all_here)) for _ in range(1000)]
            await all_here.wait()
            await asyncio.to_thread(api.send)
        return [client.result() for client in clients]

    got = asyncio.run(crowd())
    wanted = [str(event["id"]) for event in on_the_bus(store, start)]
    assert all(ids == wanted for ids in got)
    wait_until(lambda: api.clients() == 0)


_SLEEPER = """
import asyncio, sys
from websockets.asyncio.client import connect
async def main():
    async with connect(sys.argv[1], max_queue=1) as live:
        print(await live.recv(), flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def test_who_stops_reading_is_cut_off_and_nobody_else_notices(
    make_api: MakeApi, valkey: Valkey, store: Store
) -> None:
    """A WebSocket client in a process that is stopped: its kernel goes on acknowledging."""
    api = make_api(valkey.url, FLEET_BUS__SEND_TIMEOUT_S="0.3")
    client = subprocess.Popen(
        [sys.executable, "-c", _SLEEPER, ws_url(api)], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: api.clients() == 1)
        api.send()
        assert client.stdout is not None
        assert client.stdout.readline()
        client.send_signal(signal.SIGSTOP)
        start = last_id(store)
        seen: list[Json] = []
        with api.follow(start) as bus:
            # The kernel's buffers take a megabyte before it is noticed that nobody reads.
            while not evicted(api):
                api.send_many(100)
                seen += bus.take(200)
        assert seen == on_the_bus(store, start)
        wait_until(lambda: api.clients() == 0)
    finally:
        client.kill()
        client.communicate()
    code, said = api.end()
    assert code == 0
    assert "is cut off" in said
    assert "reads nothing" in said


def evicted(api: Api) -> int:
    return int(api.http.get("/health").json()["bus"]["evicted"])


def test_each_client_s_lag_is_told(api: Api, store: Store) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((host, int(port)))
        slow.sendall(b"GET /bus HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert slow.recv(10).startswith(b"HTTP/1.1 2")
        mine = "{}:{}".format(*slow.getsockname())
        with sending(api, 3000):
            pass
        bus = api.http.get("/health").json()["bus"]
        told = [row for row in bus["slowest"] if row["client"] == mine]
        assert told
        assert 0 < told[0]["lag"] <= bus["max_lag"]
        assert (bus["retention_s"], bus["retention_entries"]) == (3600, 100_000)


def test_a_flush_under_load_is_told_once_and_nothing_after_it_is_missed(
    make_api: MakeApi, tmp_path: Path
) -> None:
    fresh = Valkey(tmp_path).start()
    stop = threading.Event()
    try:
        api = make_api(fresh.url)
        behind = open_store(fresh.url)

        def load() -> None:
            while not stop.is_set():
                assert api.http.post("/events", json={"text": "x"}).status_code in (202, 503)

        sender = threading.Thread(target=load)
        with api.follow() as bus:
            sender.start()
            bus.take(40)
            behind.client.flushall()
            events = bus.until(is_resync)
            assert events[-1]["reason"] == "epoch_changed"
            after = bus.take(40)
            stop.set()
            sender.join()
        assert not any(map(is_resync, after))
        whole = on_the_bus(behind, "0-0")
        first = next(n for n, event in enumerate(whole) if event["id"] == after[0]["id"])
        assert whole[first : first + 40] == after
        assert after[0]["id"] == whole[first]["id"]
        assert behind.client.xlen(keys.BUS) >= 40
        behind.close()
    finally:
        stop.set()
        fresh.kill()
