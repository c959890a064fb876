"""An outcome that goes to another agent: queued is not delivered."""

from typing import Any

import pytest

from fleet.config.settings import parse
from fleet.delivery.agent_delivery import deliver_to_agent
from fleet.delivery.claims import claim
from fleet.delivery.delivery_worker import DeliveryWorker, due
from fleet.ledger import Ending, State, views
from fleet.store import Store, keys
from tests.fixtures.ledger import FOR_GOOD, Books, Twice
from tests.fixtures.outcomes import KEEP_MS, end, make
from tests.fixtures.processes import wait_until

TO_B = {"agent": "b"}


def delivery_worker(books: Books) -> DeliveryWorker:
    return DeliveryWorker(books.store, books.settings, lambda: books.intake)


def handed(books: Books, **fields: Any) -> tuple[str, str]:
    """An answer of `a`, and the dispatch of `b` that it became."""
    (dispatch_id,) = books.accept("a", **fields)
    assert end(books, Ending(answer="the answer")) == State.ANNOUNCING
    delivery_worker(books).deliver(dispatch_id)
    delivery_worker(books).deliver(dispatch_id)
    (placed,) = {row["dispatch_id"] for row in views.find(books.store, agent="b").dispatches}
    return dispatch_id, placed


def test_an_agent_confirms_by_its_turn(store: Store) -> None:
    repeated = Twice(store.client, 10_000, wakes=True)
    books = make(repeated, receiver=TO_B)
    dispatch_id, placed = handed(books, session="s", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    assert books.state(dispatch_id) == "announcing", "queued is not delivered"
    assert due(books.store, books.settings) == []
    claim = books.claimed(books.held("b"))
    assert (claim.dispatch_id, claim.text) == (placed, "the answer")
    event = claim.event
    assert (event.source, event.hops, event.session) == ("agent:a", 1, "s")
    assert event.data["outcome"]["dispatch_id"] == dispatch_id
    assert books.complete(claim) == State.COMPLETED
    assert books.record(dispatch_id)["verification"] == "ack"
    assert books.ends(dispatch_id) == ["dispatch_completed"]


def test_an_agent_that_fails_has_not_got_it(store: Store) -> None:
    books = make(Twice(store.client, 10_000, wakes=True), receiver=TO_B)
    dispatch_id, placed = handed(books)
    assert end(books, Ending(failure=FOR_GOOD), "b") == State.DEAD
    record = books.record(dispatch_id)
    assert (record["state"], record["verification"]) == ("completed", "timeout_fallback")
    (verified,) = books.bus("delivery_verified")
    assert verified.fields["reason"] == f"b had it as {placed}, which is dead (no such model)"


@pytest.mark.parametrize("injected", ["echo", "timeout_fallback"])
def test_a_terminal_says_itself_what_it_saw(store: Store, injected: str) -> None:
    books = make(store, receiver=TO_B)
    dispatch_id, _ = handed(books)
    end(books, Ending(answer="ok", facts={"injected": injected}), "b")
    assert books.record(dispatch_id)["verification"] == injected


def test_a_delivery_worker_that_died_after_its_delivery(store: Store) -> None:
    """The other agent's turn is over before the next delivery; no second turn follows."""
    books = make(store, receiver=TO_B)
    (dispatch_id,) = books.accept("a")
    end(books, Ending(answer="the answer"))
    lost = claim(store, dispatch_id, "crm", 0.0, KEEP_MS)
    assert lost
    assert deliver_to_agent(store, lambda: books.intake, lost, "b").kind == "placed"
    end(books, Ending(answer="ok"), "b")
    assert books.state(dispatch_id) == "announcing"
    store.client.hset(keys.delivery(dispatch_id), "crm|until_ms", "0")
    delivery_worker(books).deliver(dispatch_id)
    assert books.record(dispatch_id)["verification"] == "ack"
    assert len(views.find(store, agent="b").dispatches) == 1


def test_a_full_queue_is_a_failed_try(store: Store) -> None:
    books = make(store, receiver=TO_B, b={"max_pending": 1})
    books.accept("b")
    (dispatch_id,) = books.accept("a")
    end(books, Ending(answer="the answer"))
    delivery_worker(books).deliver(dispatch_id)
    seen = views.get(store, dispatch_id)
    assert seen
    assert seen["deliveries"][0]["reason"].startswith("b has 1 events waiting")
    end(books, Ending(answer="ok"), "b")
    store.client.hset("fleet:target:crm", "next_ms", "0")
    delivery_worker(books).deliver(dispatch_id)
    end(books, Ending(answer="ok"), "b")
    assert books.record(dispatch_id)["verification"] == "ack"


def test_a_deadline_bounds_what_an_agent_has(store: Store) -> None:
    books = make(store, receiver={**TO_B, "deadline_s": 0.5})
    dispatch_id, placed = handed(books)

    def ended() -> bool:
        due(store, books.settings)
        return books.state(dispatch_id) == "completed"

    wait_until(ended)
    assert books.record(dispatch_id)["verification"] == "timeout_fallback"
    end(books, Ending(answer="ok"), "b")
    assert books.state(placed) == "completed"
    assert len(books.bus("delivery_verified")) == 1, "a late word changes nothing"


def test_agents_that_tell_each_other_come_to_an_end(store: Store) -> None:
    agents = {
        name: {"runner": "python", "python": "nobody:nothing", "deliver": [f"to_{other}"]}
        for name, other in (("a", "b"), ("b", "a"))
    }
    deliveries = {"to_a": {"agent": "a"}, "to_b": {"agent": "b"}}
    settings = {"agents": agents, "deliveries": deliveries, "routes": {"max_hops": 3}}
    books = Books(store, parse(settings))
    books.accept("a")
    for agent in ("a", "b", "a", "b"):
        assert end(books, Ending(answer="and you?"), agent) == State.ANNOUNCING
        for row in views.find(store, states=["announcing"]).dispatches:
            delivery_worker(books).deliver(row["dispatch_id"])
    rows = views.find(store).dispatches
    assert {row["state"] for row in rows} == {"completed"}
    verified = sorted(row["verification"] for row in rows)
    assert verified == ["ack", "ack", "ack", "timeout_fallback"]
