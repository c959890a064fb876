"""Two hosts serve the same agent: one holds it, the other stands by, and never do both run it."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from fleet.bench._chaos_fleet import children, kill
from fleet.store import keys
from tests.chaos.arena import START_S, Arena, arena_of, pause
from tests.fixtures.processes import gone, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

#: A takeover that has to wait for it takes two thirds of it at least; one that has not, far less.
TTL_S = 5.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena_of(tmp_path_factory.mktemp("arena"), hosts=2, ttl_s=TTL_S) as arena:
        yield arena


@pytest.fixture
def arena(shared: Arena) -> Iterator[Arena]:
    """Both hosts ready; after the test nothing that was promised has been broken."""
    shared.all_stand_by()
    yield shared
    assert shared.result().violations == []


def test_a_turn_outlives_every_broken_connection(arena: Arena) -> None:
    dispatch_id = arena.send("1 3.0")
    arena.started(dispatch_id)
    worker = arena.worker()
    proxy = arena.proxy_of(worker)
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        arena.wire.begin(proxy.reset()).result(5)
        pause(0.2)
    record = arena.outcome(dispatch_id)
    assert (record["state"], record["attempt"]) == ("completed", "1")
    assert arena.worker() == worker


def test_losing_only_the_holders_own_connection_costs_no_turn(arena: Arena) -> None:
    dispatch_id = arena.send("1 2.0")
    arena.started(dispatch_id)
    client = arena.target.store.client
    client.execute_command("CLIENT", "KILL", "ID", client.hget(keys.lease("a1"), "client"))
    record = arena.outcome(dispatch_id)
    assert (record["state"], record["attempt"]) == ("completed", "1")


@pytest.mark.parametrize("who", ["both", "worker"])
def test_a_worker_stopped_past_its_lease_is_replaced_and_never_wakes(
    arena: Arena, who: str
) -> None:
    # Longer than a lease, or the child of a stopped worker would be through in time.
    dispatch_id = arena.send("2 4.0")
    arena.started(dispatch_id)
    worker = arena.worker()
    child = children(worker)[0]
    victims = [child, worker] if who == "both" else [worker]
    kill(*victims, number=signal.SIGSTOP)
    arena.started(dispatch_id, attempt=2)
    # Dead before the successor began: there is nothing left that could wake.
    assert gone(child)
    kill(*victims, number=signal.SIGCONT)
    assert arena.outcome(dispatch_id)["state"] == "completed"
    assert arena.worker() != worker


def test_a_host_cut_off_stops_its_turn_before_the_other_takes_over(arena: Arena) -> None:
    dispatch_id = arena.send("2 1.5")
    child = arena.started(dispatch_id)
    worker = arena.worker()
    cut = arena.wire.begin(arena.proxy_of(worker).hold(3 * TTL_S))
    wait_until(lambda: gone(child), TTL_S + 10)
    record = arena.outcome(dispatch_id)
    assert (record["state"], record["attempt"]) == ("completed", "2")
    assert arena.worker() != worker
    cut.result(30)


def test_a_killed_host_is_replaced_at_once(arena: Arena) -> None:
    dispatch_id = arena.send("2 0.5")
    arena.started(dispatch_id, step=1)
    host = arena.target.pid(f"host{arena.host_of(arena.worker())}")
    killed = time.monotonic()
    kill(host)
    arena.started(dispatch_id, attempt=2)
    # It need not wait for the lease to run out: on its own machine it sees that the holder is dead.
    assert time.monotonic() - killed < TTL_S * 2 / 3
    assert arena.outcome(dispatch_id)["state"] == "completed"


def test_a_stopping_host_hands_back_what_it_cannot_finish(arena: Arena) -> None:
    # Longer than drain_s.
    dispatch_id = arena.send("1 8.0")
    child = arena.started(dispatch_id)
    host = arena.target.pid(f"host{arena.host_of(arena.worker())}")
    os.kill(host, signal.SIGTERM)
    arena.started(dispatch_id, attempt=2)
    assert gone(child)
    record = arena.outcome(dispatch_id)
    # Handed back is not lost.
    assert (record["state"], record["losses"]) == ("completed", "0")


def test_the_standby_consumes_nothing(arena: Arena) -> None:
    ids = [arena.send("1 0.01") for _ in range(10)]
    holder = arena.worker()
    pids = {arena.started(dispatch_id) for dispatch_id in ids}
    assert pids == {*children(holder)}
    wait_until(lambda: arena.target.unfinished() == 0, START_S)
