"""A message that Celery's producers would not send is refused and told; no worker ends by it."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from fleet.ledger import refusals
from fleet.store import keys
from tests.fixtures.fleet import READY, Fleet, Process, fleet_of
from tests.fixtures.processes import wait_until

TAG = "tag"
PROPERTIES: dict[str, Any] = {
    "delivery_tag": TAG,
    "delivery_info": {"exchange": "", "routing_key": "q"},
    "body_encoding": "base64",
}


def message(
    body: str | bytes, properties: Any = PROPERTIES, *, raw: bool = False, **headers: Any
) -> str:
    """A message as kombu puts it into a queue; `None` leaves a header out."""
    held = {"task": "fleet.intake", "id": "an-id", "lang": "py", **headers}
    content = body.encode() if isinstance(body, str) else body
    return json.dumps(
        {
            "body": body if raw else base64.b64encode(content).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {name: value for name, value in held.items() if value is not None},
            "properties": properties,
        }
    )


CALL = "[[], {}, {}]"
BROKEN: dict[str, str | bytes] = {
    "no JSON": "not at all",
    "not even text": b"\xff\xfe\x00",
    "a list": "[]",
    "nothing": "null",
    "an empty object": "{}",
    "too deep": "[" * 100_000,
    "no properties": message(CALL, None),
    "no delivery tag": message(CALL, {**PROPERTIES, "delivery_tag": None}),
    "a number for where it came from": message(CALL, {**PROPERTIES, "delivery_info": 5}),
    "an unknown encoding": message(CALL, {**PROPERTIES, "body_encoding": "unheard-of"}),
    "a body that is not base64": message("%%%", raw=True),
    "no triple": message("[1]"),
    "an object for a body": message('{"a": 1}'),
    "a number for a body": message("5"),
    "null for a body": message("null"),
    "three letters for a body": message('"abc"'),
    "options that are none": message("[[], {}, 5]"),
    "callbacks that are none": message('[[], {}, {"callbacks": 5, "chain": 7}]'),
    "arguments that are none": message("[5, {}, {}]"),
    "no id": message(CALL, id=None),
    "a list for an id": message(CALL, id=[5]),
    "half a character for an id": message(CALL, id="\ud800"),
    "a number for a task": message(CALL, task=5),
    "an object for a task": message(CALL, task={}),
    "an old message without an id": message('{"task": "fleet.intake"}', task=None, id=None),
    "a word for limits": message(CALL, timelimit="x"),
    "one limit": message(CALL, timelimit=[1]),
    "words for limits": message(CALL, timelimit=["a", "b"]),
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet_of(tmp_path_factory.mktemp("fleet"), {"a": {}}) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def workers(fleet: Fleet) -> dict[str, Process]:
    """The workers by their queue."""
    shared, (agent,) = fleet.shared(), fleet.ready("a")
    shared.wait_said(READY)
    return {"intake": shared, keys.queue("a"): agent}


def put(fleet: Fleet, queue: str, *messages: str | bytes) -> None:
    with redis.Redis(port=fleet.server.port) as client:
        client.lpush(queue, *messages)
        wait_until(lambda: not client.llen(queue))


@pytest.mark.parametrize("queue", ["intake", keys.queue("a")])
@pytest.mark.parametrize("case", BROKEN)
def test_refused(case: str, queue: str, fleet: Fleet, workers: dict[str, Process]) -> None:
    worker = workers[queue]
    before = worker.said().count("refused a message")
    put(fleet, queue, BROKEN[case])
    wait_until(lambda: worker.said().count("refused a message") > before or not worker.alive)
    assert worker.alive
    assert "Connection to broker lost" not in worker.said()


@pytest.mark.parametrize("queue", ["intake", keys.queue("a")])
def test_counted_and_events_go_on(queue: str, fleet: Fleet, workers: dict[str, Process]) -> None:
    worker = workers[queue]
    put(fleet, queue, *BROKEN.values())
    fleet.wait_state(fleet.send("a", "say hello"), "completed")
    # What was refused is not kept, to come again.
    with redis.Redis(port=fleet.server.port) as client:
        wait_until(lambda: not client.hlen("unacked"))
    assert worker.alive
    wait_until(lambda: counted(fleet) >= len(BROKEN))


def counted(fleet: Fleet) -> int:
    """How many refusals the present series has: an alert, once it lasts."""
    series = refusals.present(fleet.books.store)
    return series.count if series else 0


def test_a_message_sets_no_limit_of_a_turn(fleet: Fleet, workers: dict[str, Process]) -> None:
    """The agent's own limits hold, for whichever dispatch is next."""
    worker = workers[keys.queue("a")]
    short = message('[["nothing"], {}, {}]', task="fleet.dispatch", timelimit=[0.001, 0.001])
    put(fleet, keys.queue("a"), *[short] * 5)
    fleet.wait_state(fleet.send("a", "say hello"), "completed")
    assert "limit (0.001s) exceeded" not in worker.said()


def test_remote_control_too(fleet: Fleet, workers: dict[str, Process]) -> None:
    """Celery's own remote control still answers after it was sent such messages."""
    with redis.Redis(port=fleet.server.port) as client, Celery(broker=fleet.server.url) as app:
        for broken in BROKEN.values():
            client.publish("/0.celery.pidbox", broken)
        wait_until(lambda: len(app.control.ping(timeout=1) or []) == len(workers))
    for worker in workers.values():
        assert worker.alive
        assert "Connection to broker lost" not in worker.said()
