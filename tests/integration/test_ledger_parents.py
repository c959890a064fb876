"""An event is the parent of its dispatches: it ends when the last of them does, and says how each
ended; and one member's death leaves the others alone, or ends them, as the configuration wishes."""

from typing import Any

import pytest

from fleet.ledger import operations, parents
from fleet.store import Store
from tests.fixtures.ledger import FOR_GOOD, Books, Twice, settings_for
from tests.fixtures.valkey import Valkey

RETRY = {"attempts": 3, "backoff_s": 0, "min_age_s": 0, "deadline_s": 3600}


def books_for(store: Store, kind: str, **routes: Any) -> Books:
    settings = settings_for("a", "b", "c", retry=RETRY, routes=routes)
    return Books(Twice(store.client, 10_000, wakes=True) if kind == "repeated" else store, settings)


@pytest.fixture(params=["once", "repeated"])
def books(request: pytest.FixtureRequest, store: Store, valkey: Valkey) -> Books:
    return books_for(store, request.param)


@pytest.fixture(params=["once", "repeated"])
def strict(request: pytest.FixtureRequest, store: Store, valkey: Valkey) -> Books:
    """A fleet in which one dead member cancels the others."""
    return books_for(store, request.param, on_member_failure="cancel")


def event(books: Books, event_id: str = "1", **options: Any) -> dict[str, Any]:
    found = parents.get(books.store, event_id, **options)
    assert found is not None
    return found


def states(books: Books, event_id: str = "1") -> dict[str, str]:
    return {one["agent"]: one["state"] for one in event(books, event_id)["members"]}


def test_it_ends_with_its_last_member_and_names_each_outcome(books: Books) -> None:
    first, second, third = books.accept("all", id="1")
    found = event(books)
    assert (found["state"], found["route"]) == ("open", "to: all")
    assert [one["dispatch_id"] for one in found["members"]] == [first, second, third]
    books.complete(books.claimed(books.held("a")))
    books.fail(books.claimed(books.held("b")), FOR_GOOD)
    assert (event(books)["state"], event(books)["outcomes"]) == (
        "open",
        {"completed": 1, "dead": 1},
    )
    assert "ended_at" not in event(books)
    operations.cancel(books.ledger, books.settings, third, "enough")
    found = event(books)
    assert found["state"] == "ended"
    assert found["accepted_at"] <= found["ended_at"]
    assert states(books) == {"a": "completed", "b": "dead", "c": "cancelled"}
    assert found["outcomes"] == {"completed": 1, "dead": 1, "cancelled": 1}
    dead = found["members"][1]
    assert (dead["stage"], dead["error"]) == ("llm", "no such model")


def test_one_member_fails_and_the_others_go_on(books: Books) -> None:
    books.accept("all", id="1")
    books.fail(books.claimed(books.held("b")), FOR_GOOD)
    assert states(books) == {"a": "queued", "b": "dead", "c": "queued"}
    assert event(books)["on_member_failure"] == "continue"
    for agent in "ac":
        books.complete(books.claimed(books.held(agent)))
    assert event(books)["state"] == "ended"


def test_a_replayed_member_opens_it_again(books: Books) -> None:
    (one,) = books.accept("a", id="1")
    lease = books.held("a")
    books.fail(books.claimed(lease), FOR_GOOD)
    assert event(books)["state"] == "ended"
    operations.replay(books.ledger, books.settings, one)
    found = event(books)
    assert (found["state"], states(books)) == ("open", {"a": "queued"})
    assert "ended_at" not in found
    books.complete(books.claimed(lease))
    assert (event(books)["state"], states(books)) == ("ended", {"a": "completed"})


def test_its_outcomes_outlive_the_records_of_its_members(store: Store, valkey: Valkey) -> None:
    settings = settings_for("a", "b", retry=RETRY, fleet={"retention": {"max": 1}})
    books = Books(store, settings)
    books.accept("all", id="1")
    for agent in "ab":
        books.complete(books.claimed(books.held(agent)))
    books.sweep()
    assert sorted(books.state(one["dispatch_id"]) for one in event(books)["members"]) == [
        "",
        "completed",
    ]
    assert states(books) == {"a": "completed", "b": "completed"}


def test_content_only_when_it_is_asked_for(books: Books) -> None:
    books.accept(["a", "b"], text="a secret", id="1")
    books.complete(books.claimed(books.held("a")), "a secret answer")
    assert "secret" not in str(event(books))
    shown = event(books, content=True)
    assert shown["event"]["data"]["text"] == "a secret"
    assert shown["members"][0]["answer"] == "a secret answer"
    assert "answer" not in shown["members"][1]


def test_the_source_is_part_of_its_name(books: Books) -> None:
    books.accept("a", id="1", source="ci")
    assert parents.get(books.store, "1") is None
    assert event(books, source="ci")["source"] == "ci"


def test_a_dead_member_cancels_those_that_wait(strict: Books) -> None:
    strict.accept("all", id="1")
    bystander = strict.accept("c", id="2")[0]
    strict.fail(strict.claimed(strict.held("b")), FOR_GOOD)
    found = event(strict)
    assert (found["state"], found["on_member_failure"]) == ("ended", "cancel")
    assert states(strict) == {"a": "cancelled", "b": "dead", "c": "cancelled"}
    reason = "b failed, and routes.on_member_failure is cancel"
    assert [one.fields["reason"] for one in strict.bus("dispatch_cancelled")] == [reason, reason]
    assert strict.state(bystander) == "queued"
    assert strict.claimed(strict.held("c")).dispatch_id == bystander
    assert strict.claim(strict.held("a")) is None


def test_a_dead_member_asks_those_that_run_to_stop(strict: Books) -> None:
    strict.accept("all", id="1")
    running = strict.claimed(strict.held("a"))
    finished = strict.claimed(strict.held("c"))
    strict.complete(finished)
    strict.fail(strict.claimed(strict.held("b")), FOR_GOOD)
    assert states(strict) == {"a": "active", "b": "dead", "c": "completed"}
    assert event(strict)["state"] == "open"
    assert "b failed" in strict.ledger.step(running, "1", "{}")
    strict.fail(running)
    assert states(strict)["a"] == "cancelled"
    assert event(strict)["state"] == "ended"


def test_a_member_that_retries_is_cancelled_too(strict: Books) -> None:
    strict.accept(["a", "b"], id="1")
    assert strict.fail(strict.claimed(strict.held("a"))) == "retrying"
    strict.fail(strict.claimed(strict.held("b")), FOR_GOOD)
    strict.reclaim()
    assert states(strict) == {"a": "cancelled", "b": "dead"}


def test_members_of_one_session_are_cancelled_in_their_line(strict: Books) -> None:
    strict.accept(["a", "b", "c"], id="1", session="s")
    (later,) = strict.accept("c", id="2", session="s")
    strict.fail(strict.claimed(strict.held("a")), FOR_GOOD)
    assert states(strict) == {"a": "dead", "b": "cancelled", "c": "cancelled"}
    assert strict.claim(strict.held("b")) is None
    assert strict.claimed(strict.held("c")).dispatch_id == later


def test_a_member_whose_worker_dies_for_good_cancels_the_others(strict: Books) -> None:
    strict.accept(["a", "b"], id="1")
    lease = strict.held("a")
    for _ in range(3):
        strict.claimed(lease)
    assert states(strict) == {"a": "active", "b": "queued"}
    assert strict.claim(lease) is None
    assert states(strict) == {"a": "dead", "b": "cancelled"}
    assert event(strict)["state"] == "ended"


def test_a_cancelled_member_cancels_nobody(strict: Books) -> None:
    one, _ = strict.accept(["a", "b"], id="1")
    operations.cancel(strict.ledger, strict.settings, one, "enough")
    assert states(strict) == {"a": "cancelled", "b": "queued"}


def test_a_member_that_expires_is_one_outcome_of_many(store: Store, valkey: Valkey) -> None:
    settings = settings_for("a", "b", retry={**RETRY, "deadline_s": 1})
    books = Books(store, settings)
    lease = books.held("b")
    books.accept(["a", "b"], id="1")
    running = books.claimed(lease)
    while states(books)["a"] == "queued":
        books.reclaim()
    assert (states(books)["a"], event(books)["state"]) == ("expired", "open")
    books.complete(running)
    assert (states(books), event(books)["state"]) == ({"a": "expired", "b": "completed"}, "ended")
