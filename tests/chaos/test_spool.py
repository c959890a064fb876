"""The broker is gone in five ways while events come in over HTTP: each accepted one runs once."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet.bench._chaos_fleet import kill
from fleet.broker.binary import find_server
from fleet.store import Store, keys, open_store
from fleet.system.api_address import read_address
from tests.chaos.arena import END_S, START_S, Arena, arena_of, pause
from tests.chaos.netns import machines
from tests.chaos.sender import AGENTS, Sender
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import free_port
from tests.integration.api.conftest import Api

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

#: Longer than it takes until the breaker is open, and than a lease.
AWAY_S = 6.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Arena, Sender]]:
    with arena_of(tmp_path_factory.mktemp("arena"), agents=len(AGENTS), ttl_s=2.0) as arena:
        folder = arena.where.folder
        (config,) = folder.glob("fleet-*.toml")
        arena.target.processes.start(
            "api",
            [sys.executable, "-m", "fleet", "api"],
            # As long as by default: it is the workers who tell that the broker is back.
            {"FLEET_CONFIG": str(config), "FLEET_API__PORT": "0"},
        )
        wait_until(lambda: read_address(folder) is not None, START_S)
        sender = Sender(arena, str(read_address(folder)))
        yield arena, sender
        sender.http.close()


def killed(arena: Arena) -> None:
    kill(arena.where.endpoint.pid)
    pause(AWAY_S)
    arena.where.endpoint = arena.where.broker.start()


def hung(arena: Arena) -> None:
    kill(arena.where.endpoint.pid, number=signal.SIGSTOP)
    pause(AWAY_S)
    kill(arena.where.endpoint.pid, number=signal.SIGCONT)


def read_only(arena: Arena) -> None:
    with arena.where.client() as client:
        client.replicaof("127.0.0.1", "1")
        pause(AWAY_S)
        client.replicaof("NO", "ONE")


def out_of_memory(arena: Arena) -> None:
    with arena.where.client() as client:
        client.config_set("maxmemory", 1)
        pause(AWAY_S)
        client.config_set("maxmemory", 0)


def silent_network(arena: Arena) -> None:
    arena.wire.begin(arena.wire.proxies[0].hold(AWAY_S)).result(2 * AWAY_S)


@pytest.mark.parametrize("trouble", [killed, hung, read_only, out_of_memory, silent_network])
def test_every_accepted_event_runs_once(shared: tuple[Arena, Sender], trouble: Any) -> None:
    arena, sender = shared
    with sender.sending():
        wait_until(lambda: len(arena.bus("dispatch_completed")) > 3, START_S)
        trouble(arena)
        wait_until(lambda: sender.gate()["breaker"] == "closed", END_S)
        pause(0.5)
    wait_until(lambda: sender.gate()["spooled"] == 0, END_S)
    wait_until(lambda: arena.target.unfinished() == 0, END_S)
    result = arena.result()
    assert result.violations == []
    assert set(result.outcomes) == {"completed"}
    # A store that is full says so; whatever else is wrong, the event is kept.
    assert set(sender.refused) <= ({429} if trouble is out_of_memory else set())
    sender.refused.clear()
    client: Any = arena.target.store.client
    seqs = [int(client.hget(keys.dispatch(one), "seq")) for one in sender.in_session]
    assert seqs == sorted(seqs), "in the order in which they were sent"


def test_packets_to_the_broker_are_dropped(tmp_path: Path) -> None:
    """Nothing is refused, no connection ends, and a new one is not made either."""
    with ExitStack() as stack:
        (site,) = stack.enter_context(machines(1))
        port = free_port()
        listening = ("--port", str(port), "--bind", site.there, "--protected-mode", "no")
        server = subprocess.Popen(
            [*site.command, str(find_server().path), *listening, "--dir", str(tmp_path)],
            stdout=subprocess.DEVNULL,
        )
        stack.callback(server.wait)
        stack.callback(server.kill)
        store = open_store(f"redis://{site.there}:{port}/0")
        stack.callback(store.close)
        wait_until(lambda: answers(store), START_S)
        api = Api(tmp_path, f"redis://{site.there}:{port}/0", FLEET_BREAKER__RESET_TIMEOUT_S="1")
        stack.callback(api.close)
        before = [api.send(id=f"e{number}").status_code for number in range(3)]
        site.cut()
        during = [api.send(id=f"e{number}").status_code for number in range(3, 20)]
        wait_until(lambda: gate(api)["breaker"] != "closed", END_S)
        site.heal()
        wait_until(lambda: gate(api)["spooled"] == 0, END_S)
        assert {*before, *during} == {202}
        entries: Any = store.client.xrange(keys.BUS)
        accepted = [
            fields["event_id"] for _, fields in entries if fields["type"] == "event_accepted"
        ]
        assert sorted(accepted) == sorted(f"e{number}" for number in range(20))


def answers(store: Store) -> bool:
    with suppress(redis.RedisError):
        return bool(store.client.ping())
    return False


def gate(api: Api) -> dict[str, Any]:
    return dict(api.http.get("/health").json()["g4"])
