"""One step ends a turn of a pool and claims the next one."""

import pytest

from fleet.errors import Fenced
from fleet.ledger import Ending
from fleet.store import Store
from tests.fixtures.pool import PoolBooks, pool_settings


@pytest.fixture
def books(store: Store) -> PoolBooks:
    return PoolBooks(store, pool_settings({"a": {}, "b": {}}))


def test_the_end_of_a_turn_claims_the_next_one(books: PoolBooks) -> None:
    sent = [books.accept("a")[0] for _ in range(3)]
    runs, ran = books.runs(), []
    found = runs.claim()
    while found is not None:
        ran.append(found.claim.dispatch_id)
        assert runs.commit(found.claim, Ending(answer="x")) == "completed"
        found = runs.next
    assert ran == sent
    assert books.pool_wakeups() == 1, "the first one's, for this test claimed without it"


def test_the_end_of_a_turn_wakes_a_process_for_another_agent(books: PoolBooks) -> None:
    """The two that the session had held back come into the line; one of them is claimed."""
    held, _, _ = (books.accept(agent, session="s")[0] for agent in ("a", "b", "a"))
    runs = books.runs()
    first = runs.claim()
    assert first is not None
    assert first.claim.dispatch_id == held
    books.accept("a")
    books.store.client.delete("pool.p")
    runs.commit(first.claim, Ending(answer="x"))
    assert runs.next is not None
    assert books.pool_wakeups() == 1
    assert len(books.ready()) == 1


def test_a_repeated_end_claims_nothing_twice(books: PoolBooks) -> None:
    books.accept("a")
    books.accept(["a", "b"])
    runs = books.runs()
    first = runs.claim()
    assert first is not None
    runs.commit(first.claim, Ending(answer="x"))
    once = runs.next
    runs.commit(first.claim, Ending(answer="x"))
    assert runs.next == once
    assert once is not None
    assert books.record(once.claim.dispatch_id)["attempt"] == "1"


def test_a_refused_end_claims_nothing(books: PoolBooks) -> None:
    (one,) = books.accept("a")
    books.accept("b")
    runs = books.runs()
    first = runs.claim()
    assert first is not None
    books.pass_time(first.claim.dispatch_id)
    books.first.renew(0)
    with pytest.raises(Fenced):
        runs.commit(first.claim, Ending(answer="x"))
    assert runs.next is None
    assert len(books.ready()) == 2
    assert one


def test_a_turn_of_an_agent_that_the_worker_does_not_know_goes_elsewhere(books: PoolBooks) -> None:
    (one,) = books.accept("a")
    claim = books.taken()
    assert books.first.end(claim.dispatch_id, claim.lease, "unknown") == "queued"
    books.over(claim)
    assert books.take() is None, "not to the same one again at once"
    books.store.client.zadd("fleet:rests", {"a": 1})
    other = books.worker("elsewhere/1/1")
    again = books.taken(other)
    assert again.dispatch_id == one
    assert books.losses(one) == 0
