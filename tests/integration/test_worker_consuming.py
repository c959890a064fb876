"""A worker's report that it consumes, or that its queue was cancelled from outside."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from fleet.intake.spool.components import SpoolComponents
from fleet.ops import agents, health
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.processes import wait_until


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, {"a": {}}) as fleet:
        fleet.ready("a")
        yield fleet


def document(fleet: Fleet) -> dict[str, Any]:
    components = SpoolComponents.of(fleet.settings)
    return health.document(lambda: fleet.books.store, fleet.settings, components)


def consuming(fleet: Fleet) -> bool:
    """As both tell it."""
    (row,) = agents.rows(fleet.books.store, fleet.settings, ["a"])
    shown = document(fleet)["g2"]["agents"]["a"]["consuming"]
    return bool(row["consuming"] and shown)


def test_a_worker_whose_queue_was_cancelled_from_outside_is_seen(fleet: Fleet) -> None:
    wait_until(lambda: consuming(fleet))
    app = Celery(broker=fleet.server.url, set_as_current=False)
    app.control.cancel_consumer("agent.a")
    wait_until(lambda: not consuming(fleet))
    found = document(fleet)
    assert found["status"] == "degraded"
    row = found["g2"]["agents"]["a"]
    assert row["holder"], "it still holds the lease"
    assert 0 <= row["reported_s"] < fleet.settings.lease_ttl_s
    app.control.add_consumer("agent.a")
    wait_until(lambda: consuming(fleet))
    fleet.wait_state(fleet.send("a", "say hello"), "completed")


def test_nobody_is_said_to_consume_when_the_worker_is_gone(fleet: Fleet) -> None:
    wait_until(lambda: consuming(fleet))
    fleet.processes[0].kill()
    wait_until(lambda: not consuming(fleet))
    assert document(fleet)["g2"]["agents"]["a"]["reported_s"] is None
