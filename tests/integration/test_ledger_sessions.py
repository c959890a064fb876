"""Sessions: strictly by acceptance, one turn at a time, over all agents; nobody else waits."""

import pytest

from fleet.ledger import agent_rows, operations, views
from fleet.store import Store
from tests.fixtures.ledger import FOR_GOOD, OUTAGE, Books, settings_for


@pytest.fixture
def books(store: Store) -> Books:
    retry = {"attempts": 2, "backoff_s": 0, "min_age_s": 0}
    return Books(store, settings_for("a", "b", retry=retry))


def test_a_session_is_in_order_over_all_agents(books: Books) -> None:
    one, two = books.held("a"), books.held("b")
    (first,), (second,) = books.accept("a", session="s"), books.accept("b", session="s")
    assert books.claim(two) is None
    claim = books.claimed(one)
    assert books.claim(two) is None
    books.complete(claim)
    assert books.claimed(two).dispatch_id == second
    assert claim.dispatch_id == first


def test_another_session_and_none_do_not_wait(books: Books) -> None:
    lease = books.held("a")
    held = books.held("b")
    books.accept("b", session="s")
    books.claimed(held)
    (waits,), (runs,), (too,) = (books.accept("a", session=s) for s in ("s", "t", None))
    claims = []
    for _ in range(2):
        claims.append(books.claimed(lease))
        books.complete(claims[-1])
    assert [claim.dispatch_id for claim in claims] == [runs, too]
    assert books.claim(lease) is None
    assert books.state(waits) == "queued"


def test_a_higher_lane_does_not_overtake_within_a_session(books: Books) -> None:
    lease = books.held()
    (first,), _ = books.accept(session="s"), books.accept(session="s", priority=9)
    assert books.claimed(lease).dispatch_id == first


def test_a_retrying_one_holds_back_the_later_ones_of_its_session_only(books: Books) -> None:
    lease = books.held()
    (first,), (second,), (other,) = (books.accept(session=s) for s in ("s", "s", "t"))
    books.fail(books.claimed(lease), OUTAGE)
    assert books.claimed(lease).dispatch_id == other
    books.complete(books.claimed(lease))
    assert books.claim(lease) is None
    books.reclaim()
    books.complete(books.claimed(lease))
    assert books.state(first) == "completed"
    assert books.claimed(lease).dispatch_id == second


@pytest.mark.parametrize("end", ["cancel", "expire", "die"])
def test_whatever_ends_the_first_lets_the_next_one_run(end: str, books: Books) -> None:
    lease = books.held()
    (first,), (second,) = books.accept(session="s"), books.accept(session="s")
    if end == "cancel":
        operations.cancel(books.ledger, books.settings, first, "enough")
    elif end == "expire":
        books.store.client.zadd("fleet:deadlines", {first: 1})
        books.reclaim()
    else:
        books.fail(books.claimed(lease), FOR_GOOD)
    assert books.claimed(lease).dispatch_id == second


def test_a_replayed_one_goes_before_the_later_ones_of_its_session(books: Books) -> None:
    lease = books.held()
    (first,), (second,) = books.accept(session="s"), books.accept(session="s")
    books.fail(books.claimed(lease), FOR_GOOD)
    operations.replay(books.ledger, books.settings, first)
    claim = books.claimed(lease)
    assert claim.dispatch_id == first
    books.complete(claim)
    assert books.claimed(lease).dispatch_id == second


def test_a_replayed_one_waits_for_the_turn_that_runs(books: Books) -> None:
    one, two = books.held("a"), books.held("b")
    (first,), (second,) = books.accept("a", session="s"), books.accept("b", session="s")
    books.fail(books.claimed(one), FOR_GOOD)
    running = books.claimed(two)
    assert running.dispatch_id == second
    operations.replay(books.ledger, books.settings, first)
    assert books.claim(one) is None
    books.complete(running)
    assert books.claimed(one).dispatch_id == first


def test_a_handed_back_turn_goes_before_an_older_replayed_one(books: Books) -> None:
    lease = books.held()
    (first,), (second,) = books.accept(session="s"), books.accept(session="s")
    books.fail(books.claimed(lease), FOR_GOOD)
    assert books.claimed(lease).dispatch_id == second
    lease.release()
    operations.replay(books.ledger, books.settings, first)
    lease = books.held()
    found = []
    while claim := books.claim(lease):
        found.append(claim.dispatch_id)
        books.complete(claim)
    assert found == [second, first]


def test_a_session_leaves_nothing_behind(books: Books) -> None:
    lease = books.held()
    books.accept(["a", "b"], session="s")
    books.complete(books.claimed(lease))
    books.complete(books.claimed(books.held("b")))
    assert not list(books.store.client.scan_iter("fleet:session*"))


def test_what_waits_for_its_session_is_counted_everywhere_alike(books: Books) -> None:
    books.accept("a", session="s")
    for _ in range(2):
        books.accept("b", session="s")
    assert views.counts(books.store, ["b"])["b"]["states"] == {"queued": 2}
    assert agent_rows.rows(books.store, ["a", "b", "new"])["b"]["queued"] == 2
    assert agent_rows.rows(books.store, ["new"])["new"]["queued"] == 0
