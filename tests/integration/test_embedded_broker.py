"""The embedded broker's life: durable, private, killed, adopted, shared and kept running."""

import asyncio
import json
import os
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest
import redis

from fleet.broker.embedded import EmbeddedBroker, read_endpoint
from fleet.supervisor.broker_restart import keep_broker_running
from tests.fixtures.brokers import Make, connect, make, orphan, sigkill, stranger
from tests.fixtures.processes import gone, no_leftovers
from tests.fixtures.valkey import free_port

__all__ = ["make", "no_leftovers", "orphan"]


def listens(pid: int) -> list[tuple[str, int]]:
    """The addresses at which a process takes connections from a network."""
    wires = psutil.Process(pid).net_connections("inet")
    return [tuple(wire.laddr) for wire in wires if wire.status == psutil.CONN_LISTEN]


def test_it_is_durable_and_evicts_nothing(make: Make, tmp_path: Path) -> None:
    endpoint = make().start()

    with connect(tmp_path) as client:
        assert client.config_get("*") | {
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "save": "",
        } == client.config_get("*")
    assert endpoint == read_endpoint(tmp_path)


def test_it_leaves_memory_to_the_machine(make: Make, tmp_path: Path) -> None:
    """Intake ends before the machine's memory does, on a server that is adopted too."""

    def limit() -> int:
        with connect(tmp_path) as client:
            return int(client.config_get("maxmemory")["maxmemory"])

    make().start()
    assert 0 < limit() < psutil.virtual_memory().total * 0.6
    with connect(tmp_path) as client:
        client.config_set("maxmemory", "0")
    make().start()
    assert limit() > 0


def test_it_listens_on_its_private_socket_only(make: Make, tmp_path: Path) -> None:
    """A port that another user could take while the server is down would get the password."""
    endpoint = make().start()

    assert listens(endpoint.pid) == []
    folder = tmp_path / "broker"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "server.sock").stat().st_mode) == 0o700


def test_a_port_is_opened_where_it_is_configured(make: Make) -> None:
    port = free_port()
    endpoint = make(port=port).start()

    assert listens(endpoint.pid) == [("127.0.0.1", port)]
    with pytest.raises(redis.AuthenticationError), redis.Redis(port=port) as client:
        client.ping()
    assert str(port) not in endpoint.url


def test_durability_is_the_operators_choice(make: Make, tmp_path: Path) -> None:
    make(durability="everysec").start()
    with connect(tmp_path) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}


def test_the_password_is_demanded_and_private(make: Make, tmp_path: Path) -> None:
    endpoint = make().start()

    with pytest.raises(redis.AuthenticationError), stranger(tmp_path) as client:
        client.ping()
    assert endpoint.url not in repr(endpoint)
    assert stat.S_IMODE((tmp_path / "broker" / "password").stat().st_mode) == 0o600


def test_each_start_has_a_password_of_its_own(make: Make, tmp_path: Path) -> None:
    broker = make()
    known = broker.start().url
    broker.stop()

    make().start()

    with pytest.raises(redis.AuthenticationError), redis.Redis.from_url(known) as client:
        client.ping()
    with connect(tmp_path) as client:
        assert client.ping()


def test_sigkill_of_the_server_loses_nothing_and_keeps_the_address(
    make: Make, tmp_path: Path
) -> None:
    broker = make()
    before = broker.start()
    with connect(tmp_path) as client:
        client.set("kept", "yes")
    sigkill(broker)
    assert read_endpoint(tmp_path) is None

    after = broker.start()

    with connect(tmp_path) as client:
        assert client.get("kept") == "yes"
    assert after.url == before.url
    assert (broker.started, broker.adopted) == (True, False)


def test_a_clean_stop_loses_nothing_either(make: Make, tmp_path: Path) -> None:
    broker = make()
    broker.start()
    with connect(tmp_path) as client:
        client.set("kept", "yes")
    broker.stop()
    assert (broker.alive(), broker.pid, read_endpoint(tmp_path)) == (False, None, None)

    make().start()
    with connect(tmp_path) as client:
        assert client.get("kept") == "yes"


def test_a_server_that_outlived_its_fleet_is_adopted(
    orphan: int, make: Make, tmp_path: Path
) -> None:
    with connect(tmp_path) as client:
        client.set("kept", "yes")
        broker = make(durability="everysec")
        endpoint = broker.start()

        assert endpoint.pid == orphan
        assert (broker.started, broker.adopted, broker.alive()) == (False, True, True)
        assert client.get("kept") == "yes"
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
    broker.stop()
    assert gone(orphan)
    assert read_endpoint(tmp_path) is None


def test_a_fleet_killed_before_it_published_its_server_is_followed_too(
    orphan: int, make: Make, tmp_path: Path
) -> None:
    told = tmp_path / "broker" / "endpoint.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"pid": 0}))
    assert read_endpoint(tmp_path) is None

    assert make().start().pid == orphan
    assert read_endpoint(tmp_path) is not None


def test_an_adopted_server_that_dies_is_started_again(
    orphan: int, make: Make, tmp_path: Path
) -> None:
    broker = make()
    adopted = broker.start()
    sigkill(broker)

    again = broker.start()
    assert broker.started
    assert again.url == adopted.url


def test_starts_at_once_share_one_server(make: Make) -> None:
    brokers = [make() for _ in range(4)]
    with ThreadPoolExecutor(len(brokers)) as threads:
        endpoints = set(threads.map(EmbeddedBroker.start, brokers))
    assert len(endpoints) == 1
    assert sorted(broker.adopted for broker in brokers) == [False, True, True, True]


def test_start_of_a_running_broker_changes_nothing(make: Make) -> None:
    broker = make()
    assert broker.start() == broker.start()
    assert broker.started


def test_a_hung_server_is_killed_in_the_end(make: Make) -> None:
    broker = make()
    pid = broker.start().pid
    os.kill(pid, signal.SIGSTOP)
    broker.stop(timeout_s=0.1)
    assert gone(pid)


def test_a_dead_server_is_kept_running_by_the_hook(make: Make, tmp_path: Path) -> None:
    broker = make()
    before = broker.start()
    said: list[str] = []

    async def scenario() -> None:
        told = asyncio.Event()

        def say(line: str) -> None:
            said.append(line)
            told.set()

        keeping = asyncio.create_task(keep_broker_running(broker, say))
        os.kill(before.pid, signal.SIGKILL)
        await asyncio.wait_for(told.wait(), 10)
        keeping.cancel()

    asyncio.run(scenario())
    after = read_endpoint(tmp_path)
    assert after is not None
    assert after.url == before.url
    assert said == [f"ended and was started again, pid {after.pid}"]
