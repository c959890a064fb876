"""A wake-up is the message that Celery itself would send; any producer can send to intake."""

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery
from kombu import Consumer, Queue

from fleet.errors import Refused
from fleet.store import Store, keys
from fleet.store.wakeup import DISPATCH_TASK, INTAKE_TASK
from tests.fixtures.fleet import READY, Fleet, fleet_of
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.valkey import Valkey


def producer(url: str) -> Celery:
    """The app of anybody who installed Celery and not this package; a backend gets the answer."""
    return Celery(broker=url, backend=url, set_as_current=False)


def popped(store: Store, queue: str) -> dict[str, Any]:
    """The one message in a queue, its body as a value."""
    (text,) = store.client.lrange(queue, 0, -1)
    message: dict[str, Any] = json.loads(text)
    body = message.pop("body")
    if message["properties"].pop("body_encoding", None) == "base64":
        body = base64.b64decode(body)
    return {**message, "body": json.loads(body)}


def test_it_is_what_celery_would_send(store: Store, valkey: Valkey) -> None:
    """All but the tag, the sender's name, and what only an answer would need."""
    (dispatch_id,) = Books(store, settings_for("a")).accept("a")
    ours = popped(store, keys.queue("a"))
    store.client.delete(keys.queue("a"))
    with producer(valkey.url) as app:
        app.send_task(
            DISPATCH_TASK, (dispatch_id,), task_id=dispatch_id, queue="agent.a", ignore_result=True
        )
    theirs = popped(store, keys.queue("a"))
    assert ours["body"] == theirs["body"] == [[dispatch_id], {}, ours["body"][2]]
    for message in (ours, theirs):
        assert message["headers"].pop("origin")
        assert message["properties"].pop("delivery_tag")
        message["properties"].pop("reply_to")
    assert ours["headers"] == theirs["headers"]
    assert ours["properties"] == theirs["properties"]
    assert {name: ours[name] for name in ours if name not in ("headers", "properties")} == {
        name: theirs[name] for name in theirs if name not in ("headers", "properties")
    }


def test_each_has_a_tag_of_its_own(store: Store) -> None:
    books = Books(store, settings_for("a"))
    for _ in range(3):
        books.accept("a")
    tags = [
        json.loads(text)["properties"]["delivery_tag"]
        for text in store.client.lrange(keys.queue("a"), 0, -1)
    ]
    assert len(set(tags)) == 3


def test_kombu_reads_it(store: Store, valkey: Valkey) -> None:
    (dispatch_id,) = Books(store, settings_for("a")).accept("a")
    received: list[Any] = []
    with producer(valkey.url) as app, app.connection_for_read() as connection:
        queue = Queue(keys.queue("a"), no_ack=True)
        with Consumer(
            connection, queue, callbacks=[lambda body, message: received.append((body, message))]
        ):
            connection.drain_events(timeout=30)
    ((body, message),) = received
    assert body[0] == [dispatch_id]
    assert message.headers["task"] == DISPATCH_TASK
    assert message.headers["argsrepr"] == f"('{dispatch_id}',)"


def test_it_holds_no_content(store: Store) -> None:
    books = Books(store, settings_for("a"))
    books.accept("a", text="canary-4711", session="canary-4711", data={"key": "canary-4711"})
    (text,) = store.client.lrange(keys.queue("a"), 0, -1)
    assert "canary" not in text


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    agents: dict[str, dict[str, Any]] = {"a": {"max_pending": 2}, "one": {"on_busy": "reject"}}
    with fleet_of(tmp_path_factory.mktemp("fleet"), agents) as fleet:
        fleet.shared().wait_said(READY)
        yield fleet


@pytest.fixture
def bare(fleet: Fleet) -> Iterator[Celery]:
    with producer(fleet.server.url) as app:
        yield app


def ask(app: Celery, event: Any, **options: Any) -> Any:
    return app.send_task(INTAKE_TASK, [event], queue="intake", **options).get(timeout=30)


def test_a_bare_producer_gets_the_same_answer_as_anybody(fleet: Fleet, bare: Celery) -> None:
    event = {"id": "1", "source": "bare", "to": "a", "text": "say hello"}
    answer = ask(bare, event)
    assert answer == {
        "event_id": "1",
        "dispatches": [{"dispatch_id": keys.dispatch_id("bare\n1", "a"), "agent": "a"}],
        "duplicate": False,
    }
    assert fleet.books.state(answer["dispatches"][0]["dispatch_id"]) == "queued"
    assert ask(bare, event) == {**answer, "duplicate": True}
    assert fleet.books.intake.accept(event).to_wire() == {**answer, "duplicate": True}


@pytest.mark.parametrize(
    ("event", "kind", "words"),
    [
        ({"to": "nobody", "text": "x"}, "UnknownTarget", "no agent, group or chain 'nobody'"),
        ({"to": "a", "text": ""}, "InvalidEvent", "`text` is empty"),
        ("junk", "InvalidEvent", "must be a JSON object"),
        (None, "InvalidEvent", "must be a JSON object"),
        ({"to": "a", "text": "x", "source": "agent:a"}, "InvalidEvent", "must not begin with"),
        # As JSON both keys are the same.
        ({"to": "a", "text": "x", "data": {1: "y", "1": "z"}}, "InvalidEvent", "'1' stands twice"),
        ({"to": "a", "text": "x" * 1024 * 1024}, "InvalidEvent", "larger than 1048576 bytes"),
    ],
)
def test_a_bare_producer_gets_the_same_refusal(
    event: Any, kind: str, words: str, fleet: Fleet, bare: Celery
) -> None:
    with pytest.raises(Exception, match=words) as refusal:
        ask(bare, event)
    assert type(refusal.value).__name__ == kind
    told = fleet.books.bus("delivery_dropped")[-1].fields
    assert words in told["reason"]
    known = isinstance(event, dict)
    assert told["sender"] == (event.get("source", "fleet") if known else "")
    assert told.get("agent") == ("a" if known and event["to"] == "a" else None)


def test_a_full_agent_refuses_a_bare_producer_too(fleet: Fleet, bare: Celery) -> None:
    with suppress(Refused):
        for _ in range(2):
            fleet.books.accept("a")
    with pytest.raises(Exception, match="max_pending"):
        ask(bare, {"to": "a", "text": "x", "source": "nightly"})
    told = fleet.books.bus("delivery_dropped")[-1]
    assert (told.fields["sender"], told.fields["agent"]) == ("nightly", "a")
    assert told.fields["count"] == 1
    assert "max_pending" in told.fields["reason"]


def test_a_bare_producer_is_told_of_a_key_that_stands_for_another_event(
    fleet: Fleet, bare: Celery
) -> None:
    event = {"id": "one", "source": "twice", "to": "one", "text": "canary-4711"}
    first = ask(bare, event)
    with pytest.raises(Exception, match="other content") as refusal:
        ask(bare, {**event, "text": "other"})
    assert type(refusal.value).__name__ == "IdempotencyConflict"
    told = fleet.books.bus("delivery_dropped")[-1].fields
    assert told["sender"] == "twice"
    assert "other content" in told["reason"]
    assert ask(bare, event) == {**first, "duplicate": True}


def test_a_busy_session_refuses_a_bare_producer_too(fleet: Fleet, bare: Celery) -> None:
    event = {"to": "one", "text": "x", "session": "s"}
    ask(bare, event)
    with pytest.raises(Exception, match="one takes one event of it at a time") as refusal:
        ask(bare, event)
    assert type(refusal.value).__name__ == "SessionBusy"


def test_what_was_sent_is_not_shown(fleet: Fleet, bare: Celery) -> None:
    """Not in the log; what `celery inspect` and Flower are told is hidden by the same Request."""
    ask(bare, {"id": "quiet", "source": "bare", "to": "one", "text": "canary-4711"})
    with pytest.raises(Exception, match="unknown field"):
        ask(bare, {"text": "canary-4711", "wrong": "canary-4711"})
    assert "canary" not in fleet.processes[0].said()


def test_a_priority_of_celerys_own_does_not_hide_an_event(bare: Celery) -> None:
    """kombu keeps a list for each step of priority; one that nobody reads would swallow it."""
    event = {"id": "urgent", "source": "bare", "to": "one", "text": "x"}
    assert ask(bare, event, priority=9)["event_id"] == "urgent"
