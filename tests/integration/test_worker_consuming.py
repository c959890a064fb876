"""A worker that somebody's `celery control` changes: it tells so, and mends itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.control import Control

from fleet.ledger import agent_rows, bus
from fleet.ops import agents, health
from fleet.runtime import Runtime
from fleet.store.wakeup import INTAKE_TASK
from tests.fixtures.fleet import READY, Fleet, fleet_of
from tests.fixtures.processes import wait_until


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, {"a": {}}) as fleet:
        fleet.ready("a")
        yield fleet


def document(fleet: Fleet) -> dict[str, Any]:
    runtime = Runtime(fleet.settings)
    runtime.store = fleet.books.store
    return health.document(runtime)


def consuming(fleet: Fleet) -> bool:
    """As both tell it."""
    (row,) = agents.rows(fleet.books.store, fleet.settings, ["a"])
    shown = document(fleet)["g2"]["agents"]["a"]["consuming"]
    return bool(row["consuming"] and shown)


@pytest.fixture
def control(fleet: Fleet) -> Iterator[Control]:
    """The remote control of anybody who reaches the broker."""
    with Celery(broker=fleet.server.url, set_as_current=False) as app:
        yield app.control


def told(fleet: Fleet) -> str:
    """The reasons of all alerts about remote control."""
    entries = bus.read(fleet.books.store, "0-0", count=1000)
    found = [entry.fields for entry in entries if entry.type == "alert"]
    return " | ".join(row["reason"] for row in found if row["name"] == "remote_control")


def works(fleet: Fleet) -> None:
    fleet.wait_state(fleet.send("a", "say hello"), "completed")


def test_a_worker_whose_queue_was_cancelled_tells_so_and_consumes_again(
    fleet: Fleet, control: Control
) -> None:
    wait_until(lambda: consuming(fleet))
    for number in (1, 2):
        # Without an answer the worker did not listen yet: the command is lost then.
        wait_until(lambda: bool(control.cancel_consumer("agent.a", reply=True, timeout=2, limit=1)))
        wait_until(lambda n=number: told(fleet).count("does not consume agent.a") == n)  # type: ignore[misc]
        assert agent_rows.rows(fleet.books.store, ["a"])["a"]["holder"], "it still holds the lease"
        # Not by its report alone, which may be the one before.
        fleet.processes[0].wait_said("Started consuming from agent.a", times=number)
        wait_until(lambda: consuming(fleet))
    works(fleet)


def test_a_worker_whose_child_was_taken_tells_so_and_gets_another(
    fleet: Fleet, control: Control
) -> None:
    works(fleet)
    wait_until(lambda: bool(control.pool_shrink(1, reply=True, timeout=2, limit=1)))
    wait_until(lambda: not consuming(fleet))
    waiting = fleet.send("a", "say hello")
    fleet.wait_state(waiting, "completed")
    wait_until(lambda: consuming(fleet))
    wait_until(lambda: "its pool has 0 processes" in told(fleet))


@pytest.mark.parametrize("terminate", [False, True])
def test_a_revoked_dispatch_runs_and_ends(fleet: Fleet, control: Control, terminate: bool) -> None:
    running, waiting = fleet.send("a", "gate go"), fleet.send("a", "say hello")
    fleet.wait_started(running)
    control.revoke([running, waiting], terminate=terminate, signal="SIGKILL", reply=True)
    fleet.open_gate("go")
    assert fleet.wait_state(running, "completed")["attempt"] == "1"
    fleet.wait_state(waiting, "completed")
    wait_until(lambda: "fleet queue cancel" in told(fleet))


def test_an_agent_never_runs_two_turns_however_its_pool_is_changed(
    fleet: Fleet, control: Control
) -> None:
    control.pool_grow(2, reply=True)
    first, second = fleet.send("a", "gate go"), fleet.send("a", "gate go")
    fleet.wait_started(first)
    control.pool_grow(2, reply=True)
    assert len(fleet.processes[0].children()) == 1
    fleet.open_gate("go")
    for one in (first, second):
        assert fleet.wait_state(one, "completed")["attempt"] == "1"


def test_limits_of_others_do_not_hold(fleet: Fleet, control: Control) -> None:
    control.rate_limit("fleet.dispatch", "1/h", reply=True)
    control.time_limit("fleet.dispatch", soft=0.01, hard=0.02, reply=True)
    control.add_consumer("elsewhere", reply=True)
    for _ in range(3):
        works(fleet)
    wait_until(lambda: "consumes elsewhere" in told(fleet))
    wait_until(lambda: "limits" in told(fleet))

    def queues() -> set[str]:
        answers = control.inspect(timeout=5).active_queues() or {}
        (answer,) = answers.values() or ([],)
        return {queue["name"] for queue in answer}

    wait_until(lambda: queues() == {"agent.a"})


def test_the_shared_worker_mends_itself_too(fleet: Fleet, control: Control) -> None:
    fleet.shared().wait_said(READY)
    control.cancel_consumer("intake")
    control.pool_shrink(1)
    event = {"to": "a", "text": "say hello"}
    with Celery(broker=fleet.server.url, backend=fleet.server.url, set_as_current=False) as app:
        answer = app.send_task(INTAKE_TASK, [event], queue="intake").get(timeout=60)
    fleet.wait_state(answer["dispatches"][0]["dispatch_id"], "completed")
    wait_until(lambda: "does not consume intake" in told(fleet))


def test_nobody_is_said_to_consume_when_the_worker_is_gone(fleet: Fleet) -> None:
    wait_until(lambda: consuming(fleet))
    fleet.processes[0].kill()
    wait_until(lambda: not consuming(fleet))
    assert document(fleet)["g2"]["agents"]["a"]["reported_s"] is None
