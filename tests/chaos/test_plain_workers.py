"""Without a host: plain `celery worker` processes, two for one agent, keep every promise too."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.store import keys
from tests.chaos.arena import pause
from tests.fixtures.fleet import Fleet, Process, fleet_of
from tests.fixtures.processes import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

#: A takeover that has to wait for it takes two thirds of it at least; one that has not, far less.
TTL_S = 30.0
SOFT_S = 2.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    agents: dict[str, dict[str, Any]] = {"one": {}, "quick": {"timeout_s": SOFT_S}}
    with fleet_of(tmp_path_factory.mktemp("fleet"), agents, lease_ttl_s=TTL_S) as fleet:
        fleet.ready("quick", "one")
        yield fleet


@pytest.fixture
def pair(fleet: Fleet) -> list[Process]:
    """The worker that holds agent `one`, and one that stands by."""
    living = [process for process in fleet.processes[1:] if process.alive]
    while len(living) < 2:
        living.append(fleet.worker("one"))
        living[-1].wait_said("standing by" if len(living) > 1 else " ready.")
    holder = [process for process in living if process.pid == holder_pid(fleet)]
    wait_until(lambda: holder_pid(fleet) in [process.pid for process in living])
    return sorted(living, key=lambda process: process not in holder)


def holder_pid(fleet: Fleet) -> int:
    holder = fleet.books.store.client.hget(keys.lease("one"), "holder")
    return int(str(holder or ":0").rpartition(":")[2])


def test_the_time_limit_holds_after_the_connections_broke(fleet: Fleet) -> None:
    dispatch_id = fleet.send("quick", "hang")
    fleet.wait_started(dispatch_id)
    pause(SOFT_S / 4)
    fleet.books.store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    record = fleet.wait_state(dispatch_id, "dead")
    assert (record["stage"], record["attempt"]) == ("timeout", "1")


def test_a_killed_holder_is_followed_at_once(fleet: Fleet, pair: list[Process]) -> None:
    dispatch_id = fleet.send("one", "steps a b")
    fleet.open_gate("a")
    wait_until(lambda: len(fleet.diary("call", dispatch_id)) == 2)
    killed = time.monotonic()
    pair[0].kill()
    fleet.wait_started(dispatch_id, times=2)
    assert time.monotonic() - killed < TTL_S / 2
    assert holder_pid(fleet) == pair[1].pid
    fleet.open_gate("b")
    fleet.wait_state(dispatch_id, "completed")
    # The first call was finished and kept.
    assert [entry["what"] for entry in fleet.diary("call", dispatch_id)].count("call 0") == 1
