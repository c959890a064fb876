"""Prompts and answers are in the ledger only: in no log, queue, Celery event, bus entry or page."""

import json
from typing import Any

import httpx
import pytest
from celery import Celery

from tests.fixtures.containers import free_port
from tests.fixtures.processes import wait_until
from tests.fundamentals.fleet import PATIENCE_S, Fleet

SECRET = "31415"  # in the prompt, and so in the answer


def test_no_log_and_no_bus_entry_has_the_content(fleet: Fleet) -> None:
    fleet.start_beat()
    dispatch_id = fleet.send("echo", f"the code is {SECRET}")
    assert SECRET in fleet.wait(dispatch_id).answer
    fleet.wait(fleet.send("hopeless", f"the code is {SECRET}"), "dead")
    assert dispatch_id in fleet.logs()
    assert SECRET not in fleet.logs()
    assert dispatch_id in fleet.bus()
    assert SECRET not in fleet.bus()


def test_a_wakeup_holds_an_id_and_no_content(fleet: Fleet) -> None:
    dispatch_id = fleet.queue("echo", f"the code is {SECRET}")
    (wakeup,) = fleet.wakeups("echo")
    assert dispatch_id in wakeup
    assert SECRET not in wakeup
    fleet.start_worker("echo")
    fleet.wait(dispatch_id)


def test_celerys_events_have_no_content(fleet: Fleet) -> None:
    heard: list[dict[str, Any]] = []
    sent: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        heard.append(event)
        if not sent:  # the worker speaks, and is heard
            sent.append(fleet.send("echo", f"the code is {SECRET}"))
        receiver.should_stop = event["type"] == "task-succeeded"

    fleet.start_worker("echo")
    app = Celery(broker=fleet.url, set_as_current=False)
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, {"*": on_event})
        receiver.capture(limit=None, timeout=PATIENCE_S, wakeup=True)
    assert sent[0] in json.dumps(heard)
    assert SECRET not in json.dumps(heard)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_flower_shows_the_task_and_no_content(fleet: Fleet) -> None:
    port = free_port()
    fleet.start_flower(port)
    fleet.start_worker("echo")

    def shown(page: str) -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/{page}", timeout=10, trust_env=False).text
        except httpx.TransportError:
            return ""

    wait_until(lambda: "echo0@" in shown("workers"), PATIENCE_S)
    dispatch_id = fleet.send("echo", f"the code is {SECRET}")
    fleet.wait(dispatch_id)
    wait_until(lambda: "SUCCESS" in shown(f"task/{dispatch_id}"), PATIENCE_S)
    assert "fleet.dispatch" in shown(f"task/{dispatch_id}")
    assert SECRET not in shown(f"task/{dispatch_id}") + shown("workers") + shown("tasks")
