"""`on_busy`: what an event does that finds a turn of its session and agent not yet ended."""

from typing import Any

import pytest

from fleet.config.settings import parse
from fleet.errors import Fenced, SessionBusy
from fleet.intake.intake import Submission
from fleet.ledger import operations, views
from fleet.store import Store, keys, open_store
from tests.fixtures.ledger import FOR_GOOD, OUTAGE, Books, Twice, contents, history_key
from tests.fixtures.valkey import Valkey

RETRY = {"attempts": 2, "backoff_s": 0, "min_age_s": 0}


def books_of(store: Store, on_busy: str, **options: Any) -> Books:
    """Agent `a` with `on_busy`; `b` enqueues."""
    agent = {"runner": "python", "python": "nobody:nothing", "retry": RETRY, **options}
    return Books(store, parse({"agents": {"a": {**agent, "on_busy": on_busy}, "b": agent}}))


# reject


@pytest.mark.parametrize("state", ["queued", "active", "retrying"])
def test_reject_refuses_while_one_has_not_ended(state: str, store: Store) -> None:
    books = books_of(store, "reject")
    (first,) = books.accept("a", session="s")
    lease = books.held()
    if state == "active":
        books.claimed(lease)
    if state == "retrying":
        books.fail(books.claimed(lease), OUTAGE)
    assert books.state(first) == state
    before = contents(store)
    with pytest.raises(SessionBusy, match="a takes one event of it at a time"):
        books.accept("a", session="s")
    assert contents(store) == before


@pytest.mark.parametrize("end", ["completed", "dead", "cancelled"])
def test_reject_lets_the_next_one_in_when_it_has_ended(end: str, store: Store) -> None:
    books = books_of(store, "reject")
    (first,) = books.accept("a", session="s")
    lease = books.held()
    if end == "cancelled":
        operations.cancel(books.ledger, books.settings, first, "enough")
    elif end == "dead":
        books.fail(books.claimed(lease), FOR_GOOD)
    else:
        books.complete(books.claimed(lease))
    (second,) = books.accept("a", session="s")
    assert books.claimed(lease).dispatch_id == second


def test_reject_asks_for_its_own_session_and_agent_only(store: Store) -> None:
    books = books_of(store, "reject")
    books.accept("b", session="s")
    books.accept("a", session="s")
    books.accept("a", session="t")
    books.accept("a")
    books.accept("a")
    books.accept("b", session="s")


def test_reject_refuses_the_whole_event_and_nothing_else(store: Store) -> None:
    books = books_of(store, "reject")
    books.accept("a", session="s")
    wanted: list[dict[str, Any]] = [{"to": ["b", "a"], "session": "s"}, {"to": "b", "session": "s"}]
    answers = books.intake.accept_batch([Submission({"text": "x", **event}) for event in wanted])
    assert [type(answer).__name__ for answer in answers] == ["SessionBusy", "Accepted"]


def test_reject_answers_a_repeated_event_as_the_first_time(store: Store) -> None:
    books = books_of(store, "reject")
    first = books.accept("a", session="s", id="1")
    assert books.accept("a", session="s", id="1") == first


# interrupt


def test_interrupt_ends_the_running_turn_and_runs_next(store: Store) -> None:
    books = books_of(store, "interrupt")
    (first,), (other,) = books.accept("a", session="s"), books.accept("a", session="t")
    lease = books.held()
    running = books.claimed(lease)
    books.ledger.step(running, "1", '{"name": "ask"}')
    (second,) = books.accept("a", session="s", priority=9)
    record = books.record(first)
    assert (record["state"], record["error"]) == (
        "cancelled",
        "interrupted by a newer event of its session",
    )
    assert books.ends(first) == ["dispatch_cancelled"]
    assert store.client.lrange(keys.commands("a"), 0, -1) == [f"stop {first}"]
    assert books.ledger.steps(first) == {"1": '{"name": "ask"}'}
    with pytest.raises(Fenced):
        books.complete(running, "too late")
    assert books.claimed(lease).dispatch_id == second
    assert books.state(other) == "queued"


def test_interrupt_ends_those_that_wait_too(store: Store) -> None:
    """An agent that is busy with another session makes no difference."""
    books = books_of(store, "interrupt")
    (other,), (first,) = books.accept("a", session="t"), books.accept("a", session="s")
    lease = books.held()
    busy = books.claimed(lease)
    (second,) = books.accept("a", session="s")
    assert (books.state(first), busy.dispatch_id) == ("cancelled", other)
    books.complete(busy)
    assert books.claimed(lease).dispatch_id == second
    assert store.client.llen(keys.commands("a")) == 0


def test_interrupt_ends_one_that_waits_for_its_retry(store: Store) -> None:
    books = books_of(store, "interrupt")
    (first,) = books.accept("a", session="s")
    lease = books.held()
    books.fail(books.claimed(lease), OUTAGE)
    (second,) = books.accept("a", session="s")
    assert books.state(first) == "cancelled"
    books.reclaim()
    assert books.claimed(lease).dispatch_id == second


def test_interrupt_leaves_other_agents_and_sessions_alone(store: Store) -> None:
    books = books_of(store, "interrupt")
    one, two = books.held("a"), books.held("b")
    (mine,), (no_session,) = books.accept("b", session="s"), books.accept("a")
    running = books.claimed(two)
    also = books.claimed(one)
    (waits,) = books.accept("a", session="s")
    books.accept("a")
    assert [books.state(i) for i in (mine, no_session, waits)] == ["active", "active", "queued"]
    books.complete(running)
    books.complete(also)


def test_interrupt_writes_nothing_into_the_history(store: Store) -> None:
    books = books_of(store, "interrupt")
    books.accept("a", "half", session="s")
    lease = books.held()
    books.claimed(lease)
    books.accept("a", "whole", session="s")
    claim = books.claimed(lease)
    assert claim.history == ()
    books.complete(claim, "done")
    assert store.client.llen(history_key("s")) == 2


def test_interrupt_once_though_the_reply_was_lost(valkey: Valkey, store: Store) -> None:
    twice = Twice(open_store(valkey.url).client, 10_000, wakes=True)
    books = books_of(twice, "interrupt")
    books.accept("a", session="s")
    lease = books.held()
    books.claimed(lease)
    (second,) = books.accept("a", session="s")
    assert books.claimed(lease).dispatch_id == second
    assert len(books.bus("dispatch_cancelled")) == 1
    twice.close()


def test_enqueue_waits(store: Store) -> None:
    books = books_of(store, "enqueue")
    lease = books.held()
    ids = [books.accept("a", session="s")[0] for _ in range(3)]
    for dispatch_id in ids:
        claim = books.claimed(lease)
        assert claim.dispatch_id == dispatch_id
        books.complete(claim)
    assert views.get(store, ids[0]) is not None
