"""A turn that is stopped at once has its outcome at once, and its session until it is dead."""

from collections.abc import Callable

import pytest

from fleet.errors import Fenced
from fleet.ledger import Claim, operations
from fleet.store import Store, keys
from fleet.worker.lease import Lease
from tests.fixtures.ledger import Books, Twice, settings_for


@pytest.fixture(params=["once", "repeated"])
def books(request: pytest.FixtureRequest, store: Store) -> Books:
    kind = Twice if request.param == "repeated" else Store
    agents = settings_for("a", "b", on_busy="interrupt")
    return Books(kind(store.client, 10_000, wakes=True), agents)


def claims_again(books: Books, lease: Lease, claim: Claim) -> None:
    assert books.claim(lease) is None


def commits_late(books: Books, lease: Lease, claim: Claim) -> None:
    with pytest.raises(Fenced):
        books.complete(claim)


def is_known_to_be_killed(books: Books, lease: Lease, claim: Claim) -> None:
    lease.release()


def is_gone_with_its_machine(books: Books, lease: Lease, claim: Claim) -> None:
    books.reclaim()
    assert books.claim(books.held("b")) is None
    books.store.client.delete(keys.lease("a"), keys.lease("b"))
    books.reclaim()


@pytest.mark.parametrize(
    "dies", [claims_again, commits_late, is_known_to_be_killed, is_gone_with_its_machine]
)
def test_the_session_goes_on_when_the_turn_is_dead(
    books: Books, dies: Callable[[Books, Lease, Claim], None]
) -> None:
    lease = books.held("a")
    (running,) = books.accept("a", session="s")
    (waiting,) = books.accept("b", session="s")
    claim = books.claimed(lease)
    state = operations.cancel(books.ledger, books.settings, running, "enough", now=True)
    assert state == "cancelled"
    assert books.ends(running) == ["dispatch_cancelled"]
    other = books.held("b")
    assert books.claim(other) is None
    if dies is is_gone_with_its_machine:
        other.release()
    dies(books, lease, claim)
    if dies is is_gone_with_its_machine:
        other = books.held("b")
    assert books.claimed(other).dispatch_id == waiting
    assert books.ends(running) == ["dispatch_cancelled"]


def test_a_newer_event_waits_for_the_turn_that_it_interrupts(books: Books) -> None:
    lease = books.held("a")
    (first,) = books.accept("a", session="s")
    books.claimed(lease)
    books.store.client.delete(keys.queue("a"))
    (second,) = books.accept("a", session="s")
    assert books.ends(first) == ["dispatch_cancelled"]
    assert not books.store.client.zscore(keys.due("a"), second)
    assert books.claimed(lease).dispatch_id == second


def test_a_paused_agent_is_asked_too(store: Store) -> None:
    """Or its session would stand still for as long as it is paused."""
    books = Books(store, settings_for("a", "b"))
    lease, other = books.held("a"), books.held("b")
    (running,) = books.accept("a", session="s")
    (waiting,) = books.accept("b", session="s")
    books.claimed(lease)
    operations.pause(books.ledger, "a")
    operations.cancel(books.ledger, books.settings, running, "enough", now=True)
    books.store.client.delete(keys.queue("a"))
    assert lease.renew(busy=False)
    assert books.wakeups("a") == 1
    assert books.claim(lease) is None
    assert books.claimed(other).dispatch_id == waiting


def test_it_is_not_forgotten_before(books: Books) -> None:
    lease = books.held("a")
    (running,) = books.accept("a", session="s")
    books.claimed(lease)
    operations.cancel(books.ledger, books.settings, running, "enough", now=True)
    books.store.client.zadd("fleet:ended", {running: 0})
    books.sweep()
    assert books.state(running) == "cancelled"
    assert books.claim(lease) is None
    books.store.client.zadd("fleet:ended", {running: 0})
    books.sweep()
    assert books.state(running) == ""
