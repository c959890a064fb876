"""The broker dies, hangs, refuses to write or forgets everything while turns run."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from fleet.bench._chaos_fleet import kill
from fleet.errors import BrokerUnavailable, StoreLost
from fleet.ledger import store_life
from fleet.store import keys
from tests.chaos.arena import START_S, Arena, arena_of, pause
from tests.fixtures.processes import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

AGENTS = ("a1", "a2", "a3")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena_of(tmp_path_factory.mktemp("arena"), agents=len(AGENTS), ttl_s=7.0) as arena:
        yield arena


@pytest.fixture
def arena(shared: Arena) -> Iterator[Arena]:
    """A fleet that has kept what it promised, afterwards too."""
    yield shared
    assert shared.result().violations == []


def a_round(arena: Arena, text: str = "2 0.2") -> list[str]:
    """An event for each agent and one behind it."""
    return [arena.send(text, agent) for agent in AGENTS for _ in range(2)]


def all_complete(arena: Arena, ids: list[str]) -> list[str]:
    """The attempts that each took."""
    records = [arena.outcome(dispatch_id) for dispatch_id in ids]
    assert {record["state"] for record in records} == {"completed"}
    return [record["attempt"] for record in records]


def restart_broker(arena: Arena, away_s: float) -> None:
    kill(arena.where.endpoint.pid)
    wait_until(lambda: not arena.where.broker.alive())
    pause(away_s)
    arena.where.endpoint = arena.where.broker.start()


def test_killed_and_back_within_the_lease_no_turn_is_lost(arena: Arena) -> None:
    ids = a_round(arena, "2 1.5")
    for dispatch_id in ids[::2]:
        arena.started(dispatch_id)
    restart_broker(arena, 1.5)
    assert all_complete(arena, ids) == ["1"] * len(ids)


def test_workers_consume_soon_after_the_broker_is_back(arena: Arena) -> None:
    restart_broker(arena, 0.5)
    back = time.monotonic()
    ids = a_round(arena, "1 0.01")
    all_complete(arena, ids)
    assert time.monotonic() - back < 15


def test_stopped_for_ten_seconds_turns_stop_too_and_go_on(arena: Arena) -> None:
    ids = a_round(arena, "3 1.0")
    for dispatch_id in ids[::2]:
        arena.started(dispatch_id, step=1)
    kill(arena.where.endpoint.pid, number=signal.SIGSTOP)
    pause(10)
    kill(arena.where.endpoint.pid, number=signal.SIGCONT)
    back = time.monotonic()
    all_complete(arena, ids)
    # Two turns of 3 s behind each other, and time to come back in.
    assert time.monotonic() - back < 30


def test_read_only_for_a_while_as_in_a_failover(arena: Arena) -> None:
    pids = {agent: arena.worker(agent) for agent in AGENTS}
    ids = a_round(arena, "3 0.5")
    for dispatch_id in ids[::2]:
        arena.started(dispatch_id)
    client = arena.where.client()
    client.replicaof("127.0.0.1", "1")
    with pytest.raises(BrokerUnavailable):
        arena.target.intake.accept({"to": "a1", "text": "1 0.01"})
    pause(3)
    client.replicaof("NO", "ONE")
    all_complete(arena, ids)
    assert {agent: arena.worker(agent) for agent in AGENTS} == pids


def test_answers_lost_after_the_broker_did_what_it_was_asked(arena: Arena) -> None:
    ids = a_round(arena, "2 0.1") + a_round(arena, "2 0.1")
    while arena.target.unfinished():
        arena.wire.begin(arena.wire.proxies[0].mute(0.05)).result(5)
        pause(0.3)
    assert all_complete(arena, ids) == ["1"] * len(ids)


def test_an_emptied_broker_is_noticed_and_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    with arena_of(tmp_path_factory.mktemp("emptied"), agents=len(AGENTS)) as arena:
        over = threading.Event()
        under_load = threading.Thread(target=_send_until, args=(arena, over))
        under_load.start()
        try:
            wait_until(lambda: len(arena.bus("dispatch_completed")) > 5, START_S)
            arena.where.client().flushall()
            # Within a third of the lease, and the time a busy machine takes.
            wait_until(lambda: _said(arena))
        finally:
            over.set()
            under_load.join()
        assert "the store was emptied" in arena.target.log.read_text()
        # And the fleet works, once an operator says so: what is accepted from now on ends.
        wait_until(lambda: store_life.recover(arena.target.store) != "", START_S)
        assert {arena.outcome(i)["state"] for i in a_round(arena, "1 0.01")} == {"completed"}


def _send_until(arena: Arena, over: threading.Event) -> None:
    while not over.is_set():
        for agent in AGENTS:
            with suppress(StoreLost):
                arena.send("1 0.1", agent)
        over.wait(0.2)


def _said(arena: Arena) -> bool:
    return bool(arena.where.client().hget(keys.LOST, "reason"))
