"""The lease: one holder, a token that only grows, and no waiting for a holder that is dead."""

from collections.abc import Iterator

import pytest

from fleet.store import Store, keys
from fleet.worker.lease import Lease
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.processes import wait_until


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a", "b"))


@pytest.fixture
def first(books: Books) -> Lease:
    return books.held()


@pytest.fixture
def second(books: Books) -> Iterator[Lease]:
    """Another worker's; it has not got it yet."""
    lease = books.lease()
    yield lease
    lease.forget_beacon()


def test_a_second_one_stands_by(first: Lease, second: Lease) -> None:
    assert not second.acquire()
    assert first.renew()
    assert (first.fence, second.fence) == (1, 0)


def test_agents_are_apart(books: Books, first: Lease) -> None:
    assert books.held("b").fence == 1


def test_a_dead_holder_is_not_waited_for(books: Books, first: Lease, second: Lease) -> None:
    first.forget_beacon()
    wait_until(second.acquire)
    assert second.fence == 2
    assert books.store.client.pttl(keys.lease("a")) > 50_000
    assert not first.renew()
    assert first.fence == 1


def test_a_holder_with_another_server_run_is_waited_for(
    books: Books, first: Lease, second: Lease
) -> None:
    """After a restart of the server nobody's connection says anything about its life."""
    books.store.client.hset(keys.lease("a"), "run", "another")
    first.forget_beacon()
    assert not second.acquire()
    books.store.client.pexpire(keys.lease("a"), 1)
    wait_until(second.acquire)


def test_a_holder_that_reconnects_is_not_taken_for_dead(first: Lease, second: Lease) -> None:
    first.forget_beacon()
    assert first.renew()
    assert not second.acquire()


def test_a_lease_that_ran_out_comes_back_while_nobody_took_it(books: Books, first: Lease) -> None:
    books.store.client.delete(keys.lease("a"))
    assert first.renew()
    assert books.store.client.hget(keys.lease("a"), "fence") == "1"


def test_a_lease_that_went_to_another_never_comes_back(
    books: Books, first: Lease, second: Lease
) -> None:
    books.store.client.delete(keys.lease("a"))
    assert second.acquire()
    assert not first.renew()
    books.store.client.delete(keys.lease("a"))
    assert not first.renew()
    assert second.renew()


def test_tokens_grow_for_ever(books: Books) -> None:
    fences = []
    for _ in range(3):
        lease = books.held()
        fences.append(lease.fence)
        lease.release()
    assert fences == [1, 2, 3]
    assert [e.type for e in books.bus()] == ["agent_online", "agent_offline"] * 3


def test_it_is_certainly_valid_for_no_longer_than_the_server_counts(
    books: Books, first: Lease
) -> None:
    assert first.shared.left_s() * 1000 <= books.store.client.pttl(keys.lease("a")) + 1
    assert not first.shared.lost()


def test_nothing_to_lose_is_not_lost(second: Lease) -> None:
    assert not second.shared.lost()


def test_a_new_holder_finds_a_wakeup_for_each_runnable_dispatch(books: Books) -> None:
    books.accept("a")
    books.accept("a")
    books.store.client.delete(keys.queue("a"))
    books.held()
    assert books.wakeups("a") == 2


def test_an_idle_holder_gets_a_wakeup_for_waiting_dispatches(books: Books, first: Lease) -> None:
    books.accept("a")
    books.store.client.delete(keys.queue("a"))
    assert first.renew(busy=True)
    assert books.wakeups("a") == 0
    for _ in range(2):
        assert first.renew(busy=False)
        assert books.wakeups("a") == 1


def test_release_hands_back_without_counting_an_attempt(books: Books, first: Lease) -> None:
    (dispatch_id,) = books.accept("a")
    books.claimed(first)
    books.accept("a", priority=9)
    first.release()
    record = books.record(dispatch_id)
    assert (record["state"], record["losses"], record["attempt_base"]) == ("queued", "0", "1")
    again = books.held()
    assert books.claimed(again).dispatch_id == dispatch_id


def test_a_holder_that_stops_before_it_claims_leaves_the_interrupted_one(
    books: Books, first: Lease, second: Lease
) -> None:
    (dispatch_id,) = books.accept("a")
    books.claimed(first)
    first.forget_beacon()
    wait_until(second.acquire)
    second.release()
    claim = books.claimed(books.held())
    assert (claim.dispatch_id, claim.attempt) == (dispatch_id, 2)


def test_a_beat_says_that_a_holder_vanished(books: Books, first: Lease) -> None:
    books.store.client.delete(keys.lease("a"))
    assert books.reclaim()["offline"] == 1
    assert books.reclaim()["offline"] == 0
    assert [e.type for e in books.bus()][-1] == "agent_offline"
