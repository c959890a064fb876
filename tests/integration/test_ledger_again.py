"""Work is tried again at once by an operator."""

import pytest

from fleet.ledger import State, operations
from fleet.ledger.operations import NotPossible
from fleet.store import Store
from tests.fixtures.ledger import Books, Twice, settings_for

RETRY = {"attempts": 3, "backoff_s": 3600, "min_age_s": 0, "deadline_s": 86400}


@pytest.fixture(params=["once", "repeated"])
def books(request: pytest.FixtureRequest, store: Store) -> Books:
    """Two agents whose retries come in an hour; once as if each reply was lost."""
    kind = Twice if request.param == "repeated" else Store
    return Books(kind(store.client, 10_000, wakes=True), settings_for("a", "b", retry=RETRY))


def again(books: Books, dispatch_id: str) -> State:
    return operations.replay(books.ledger, books.settings, dispatch_id)


class TestNow:
    def test_a_retrying_one_runs_at_once_as_the_next_attempt(self, books: Books) -> None:
        lease = books.held()
        (one,) = books.accept()
        assert books.fail(books.claimed(lease)) == State.RETRYING
        assert books.claim(lease) is None
        assert again(books, one) is State.QUEUED
        assert again(books, one) is State.QUEUED, "a queued one stays so"
        assert "retry_at_ms" not in books.record(one)
        claim = books.claimed(lease)
        assert (claim.dispatch_id, claim.attempt) == (one, 2)
        assert books.complete(claim) == State.COMPLETED
        assert books.record(one)["generation"] == "1"
        assert books.reclaim()["retried"] == 0

    def test_it_keeps_its_place_in_its_session(self, books: Books) -> None:
        lease = books.held()
        (one,) = books.accept(session="s")
        (two,) = books.accept(session="s")
        books.fail(books.claimed(lease))
        again(books, one)
        assert books.complete(books.claimed(lease)) == State.COMPLETED
        assert books.claimed(lease).dispatch_id == two

    def test_its_attempts_still_end(self, books: Books) -> None:
        lease = books.held()
        (one,) = books.accept()
        states = []
        for _ in range(3):
            states.append(books.fail(books.claimed(lease)))
            if states[-1] == State.RETRYING:
                again(books, one)
        assert states == ["retrying", "retrying", "dead"]

    def test_a_running_one_and_an_ended_one_are_refused(self, books: Books) -> None:
        lease = books.held()
        (one,) = books.accept()
        claim = books.claimed(lease)
        with pytest.raises(NotPossible, match="is active: it runs already"):
            again(books, one)
        books.complete(claim)
        with pytest.raises(NotPossible, match="is completed: only a dead one"):
            again(books, one)
