"""A worker is told to stop in mid-turn, in each way that people and platforms do it."""

import os
import signal
from collections.abc import Iterator

import pytest

from fleet.bench._chaos_fleet import children, kill
from tests.chaos.arena import START_S, Arena, arena_of
from tests.fixtures.processes import gone, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena_of(tmp_path_factory.mktemp("arena")) as arena:
        yield arena


@pytest.fixture
def arena(shared: Arena) -> Iterator[Arena]:
    """A fleet that has kept what it promised, afterwards too."""
    yield shared
    assert shared.result().violations == []


def test_systemd_tells_every_process_of_a_service_to_stop(arena: Arena) -> None:
    dispatch_id = arena.send("2 0.5")
    arena.started(dispatch_id)
    for pid in arena.both():
        os.kill(pid, signal.SIGTERM)
    record = arena.outcome(dispatch_id)
    # The stopping worker let it end.
    assert (record["state"], record["attempt"]) == ("completed", "1")


def test_a_cold_stop_hands_the_turn_back(arena: Arena) -> None:
    dispatch_id = arena.send("2 1.0")
    arena.started(dispatch_id, step=1)
    os.kill(arena.worker(), signal.SIGQUIT)
    record = arena.outcome(dispatch_id)
    assert (record["state"], record["attempt"], record["losses"]) == ("completed", "2", "0")


def test_sigterm_to_the_child_alone_is_none_of_its_business(arena: Arena) -> None:
    dispatch_id = arena.send("1 0.5")
    os.kill(arena.started(dispatch_id), signal.SIGTERM)
    record = arena.outcome(dispatch_id)
    assert (record["state"], record["attempt"]) == ("completed", "1")


def test_a_host_whose_guardian_was_killed_gets_another(arena: Arena) -> None:
    host = arena.target.pid("host0")
    worker = arena.worker()
    (guardian,) = set(children(host)) - {worker}
    kill(guardian)
    wait_until(lambda: len({*children(host)} - {worker, guardian}) == 1, START_S)
    dispatch_id = arena.send("2 1.5")
    child = arena.started(dispatch_id)
    kill(child, worker, number=signal.SIGSTOP)
    arena.started(dispatch_id, attempt=2)
    assert gone(child)
    assert arena.outcome(dispatch_id)["state"] == "completed"
