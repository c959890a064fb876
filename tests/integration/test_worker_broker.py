"""A worker and its broker: back at work at once after an outage, and what Flower is told."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from tests.fixtures.fleet import Fleet, fleet_of


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    # The lease must outlive the outage.
    with fleet_of(folder, {"a": {}}, durable=True, lease_ttl_s=30) as fleet:
        fleet.ready("a")
        yield fleet


def test_work_goes_on_as_soon_as_the_broker_is_back(fleet: Fleet) -> None:
    fleet.server.kill()
    fleet.processes[0].wait_said("Connection to broker lost")
    # Celery's own attempts come at 0, 2, 6, 12 and 20 s: the fourth has failed, the next is far.
    time.sleep(12.5)
    fleet.server.start()
    fleet.wait_state(fleet.send("a", "say hello"), "completed", timeout_s=7)


def test_flower_is_told_of_every_task(fleet: Fleet) -> None:
    told: dict[str, list[str]] = {}
    ids: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        told.setdefault(event["uuid"], []).append(event["type"])
        done = [uuid for uuid in ids if "task-succeeded" in told.get(uuid, ())]
        receiver.should_stop = len(done) == 3

    def on_heartbeat(_event: dict[str, Any]) -> None:
        # Only now the receiver is known to hear what is sent.
        if not ids:
            ids.extend(fleet.send("a", "say hello") for _ in range(3))

    app = Celery(broker=fleet.server.url, set_as_current=False)
    types = ("task-received", "task-started", "task-succeeded")
    handlers = {**dict.fromkeys(types, on_event), "worker-heartbeat": on_heartbeat}
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers)
        receiver.capture(limit=None, timeout=60, wakeup=True)
    # A turn that lasts is told of twice.
    assert [list(dict.fromkeys(told[uuid])) for uuid in ids] == [list(types)] * 3
