"""RabbitMQ that answers nothing, and closes nothing: events are taken, and run when it goes on."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fleet.ops.alerts.reading import conditions
from fleet.store.wakeup import publisher_of
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.processes import wait_until
from tests.fixtures.rabbit import Rabbit, needs_rabbitmq
from tests.fixtures.valkey import free_port

pytestmark = needs_rabbitmq


@pytest.fixture
def fleet(rabbit: Rabbit, tmp_path: Path) -> Iterator[Fleet]:
    sections = {"api": {"port": free_port()}}
    try:
        with fleet_of(
            tmp_path, {"a": {}}, broker_url=rabbit.url, lease_ttl_s=30, sections=sections
        ) as fleet:
            yield fleet
    finally:
        rabbit.thaw()
        rabbit.purge("agent.a")


def beat(fleet: Fleet, *dispatch_ids: str) -> bool:
    """A tick of beat; True once these have run."""
    fleet.books.reclaim()
    return all(fleet.books.state(one) == "completed" for one in dispatch_ids)


@pytest.mark.timeout(120)
def test_events_are_taken_and_run_when_it_goes_on(fleet: Fleet, rabbit: Rabbit) -> None:
    fleet.start("api", sys.executable, "-m", "fleet", "api").wait_said("The API is")
    (worker,) = fleet.ready("a")
    url = f"http://127.0.0.1:{fleet.settings.api.port}"
    # The client's patience is the bound.
    with httpx.Client(base_url=url, timeout=15, trust_env=False) as client:

        def send() -> str:
            answer = client.post("/events", json={"to": "a", "text": "say it"})
            assert answer.status_code == 202
            return str(answer.json()["dispatches"][0]["dispatch_id"])

        fleet.wait_state(send(), "completed")
        assert "wakeups" not in client.get("/readyz").json()
        rabbit.freeze()
        sent = [send() for _ in range(20)]
        wait_until(lambda: "does not answer" in str(client.get("/readyz").json().get("wakeups")))
        assert client.get("/readyz").status_code == 200  # an event is accepted and kept
        health = client.get("/health").json()
        assert health["status"] == "degraded"
        assert "does not answer" in health["g1"]["wakeups"]
        assert ":guest@" not in health["g1"]["wakeups"]
        found = conditions(fleet.books.store, fleet.settings, wakeups=publisher_of(fleet.settings))
        (alert,) = [one for one in found if one.name == "wakeups"]
        assert "does not answer" in alert.reason
        rabbit.thaw()
        wait_until(lambda: beat(fleet, *sent), 60)
        wait_until(lambda: client.get("/health").json()["g1"]["wakeups"] is None)
    assert "delayed delivery" not in worker.said()
