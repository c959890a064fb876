"""Variables of another project, or of Celery's own, do not reach the fleet's Celery app."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from fleet.ledger import views
from fleet.store import Store
from fleet.store.wakeup_publisher import CeleryWakeupPublisher
from tests.fixtures.fleet import CELERY, READY, Fleet, fleet_of
from tests.fixtures.ledger import settings_for
from tests.fixtures.valkey import Valkey


class Elsewhere:
    """Another project's server, and who came to it."""

    def __init__(self, server: Valkey) -> None:
        self.url = server.url
        self._client = redis.Redis(port=server.port)
        self._before = self._connections()

    def visitors(self) -> int:
        """How many connections it was given since."""
        return self._connections() - self._before

    def close(self) -> None:
        self._client.close()

    def _connections(self) -> int:
        return int(self._client.info("stats")["total_connections_received"])


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Elsewhere]:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    server = Valkey(folder).start()
    found = Elsewhere(server)
    yield found
    found.close()
    server.kill()


def of_another_project(url: str) -> dict[str, str]:
    """Everything by which Celery, or its command line, can be led astray."""
    return {
        **dict.fromkeys(("BROKER_URL", "RESULT_BACKEND"), url),
        **dict.fromkeys(("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CELERY_BROKER"), url),
        **dict.fromkeys(("CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"), url),
        **dict.fromkeys(("CELERY_CONFIG_MODULE", "CELERY_CONFIG", "CONFIG_MODULE"), "not_there"),
        **dict.fromkeys(("CELERY_LOADER", "LOADER"), "not_there:Loader"),
        **dict.fromkeys(("APP", "CELERY_APP"), "not_there"),
        "CELERY_CUSTOM_WORKER_POOL": "not_there:Pool",
        "CELERY_TRACE_APP": "1",
        "CELERY_RDBSIG": "1",
        "CELERY_LOG_LEVEL": "50",
        "CELERY_WORKER_POOL": "solo",
        "CELERY_WORKER_QUEUES": "celery",
        "CELERY_WORKER_CONCURRENCY": "7",
        "CELERY_WORKER_PURGE": "true",
        "CELERY_WORKER_AUTOSCALE": "9,3",
        "CELERY_BEAT_SCHEDULER": "not_there:Scheduler",
        "CELERY_INSPECT_DESTINATION": "nobody",
    }


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "fleet"
    folder.mkdir()
    asks: dict[str, Any] = {
        "runner": "command",
        "command": ["printenv", "CELERY_BROKER_URL"],
        "env": {"CELERY_BROKER_URL": "$CELERY_BROKER_URL"},
    }
    with fleet_of(folder, {"a": {}, "told": asks}) as fleet:
        yield fleet


def test_plain_celery_serves_the_fleet_and_nobody_else(
    fleet: Fleet, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in of_another_project(elsewhere.url).items():
        monkeypatch.setenv(name, value)
    worker, shared = fleet.worker("a"), fleet.shared()
    beat = fleet.start("beat", str(CELERY), "-A", "fleet", "beat", "--pidfile=", "-l", "INFO")
    worker.wait_said(READY)
    shared.wait_said(READY)
    for name in of_another_project(elsewhere.url):
        monkeypatch.delenv(name)
    producer = Celery(broker=fleet.server.url, backend=fleet.server.url, set_as_current=False)
    event = {"text": "say hello", "to": "a", "id": "1", "source": "test"}
    answer = producer.send_task("fleet.intake", [event], queue="intake").get(timeout=20)
    fleet.wait_state(answer["dispatches"][0]["dispatch_id"], "completed")
    beat.wait_said("Sending due task")
    asked = fleet.start(
        "inspect",
        *(str(CELERY), "-A", "fleet", "inspect", "ping", "--timeout", "10"),
        **of_another_project(elsewhere.url),
    )
    asked.wait(40)
    assert "a@" in asked.said()
    assert "shared@" in asked.said()
    assert elsewhere.visitors() == 0


def test_another_broker_on_the_command_line_is_refused(fleet: Fleet, elsewhere: Elsewhere) -> None:
    worker = fleet.start("a", str(CELERY), "-A", "fleet", "-b", elsewhere.url, "worker")
    assert worker.wait() == 2
    assert worker.said().splitlines() == [
        "fleet: --broker: set fleet.broker_url instead; this option has no effect on the fleet."
    ]


def test_a_turn_still_finds_the_variables_of_its_project(
    fleet: Fleet, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", elsewhere.url)
    fleet.ready("told")
    dispatch_id = fleet.send("told", "which broker?")
    fleet.wait_state(dispatch_id, "completed")
    record = views.get(fleet.books.store, dispatch_id, content=True)
    assert record is not None
    assert elsewhere.url in record["answer"]
    assert elsewhere.visitors() == 0


def test_the_bell_of_a_broker_beside_the_store_rings_there(
    store: Store, valkey: Valkey, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL"):
        monkeypatch.setenv(name, elsewhere.url)
    urls = {"broker_url": valkey.url, "store_url": "redis://127.0.0.1:1/0"}
    CeleryWakeupPublisher(settings_for("a", fleet=urls))("a", "1")
    assert store.client.llen("agent.a") == 1
    assert elsewhere.visitors() == 0
