"""Cancel and replay, on a server that answers once and on one that is asked twice."""

import pytest

from fleet.errors import Fenced
from fleet.ledger import Ending, operations
from fleet.ledger.operations import NotPossible, Unknown
from fleet.store import Store
from tests.fixtures.ledger import FOR_GOOD, Books, impatient


@pytest.fixture(params=["once", "repeated"])
def books(request: pytest.FixtureRequest, store: Store) -> Books:
    return impatient(store, repeated=request.param == "repeated")


class TestCancel:
    def test_what_waits_is_cancelled_at_once(self, books: Books) -> None:
        (dispatch_id,) = books.accept()
        for _ in range(2):
            assert cancel(books, dispatch_id) == "cancelled"
        assert books.ends(dispatch_id) == ["dispatch_cancelled"]
        assert books.claim(books.held()) is None

    def test_what_runs_is_asked_to_stop(self, books: Books) -> None:
        lease = books.held()
        (dispatch_id,) = books.accept()
        claim = books.claimed(lease)
        assert cancel(books, dispatch_id) == "active"
        assert books.ledger.commit(claim, Ending(cancelled="enough")) == "cancelled"
        assert books.record(dispatch_id)["error"] == "enough"

    def test_a_cancelled_one_whose_worker_died_is_told_at_its_next_start(
        self, books: Books
    ) -> None:
        lease = books.held()
        (dispatch_id,) = books.accept()
        books.claimed(lease)
        cancel(books, dispatch_id)
        assert books.claimed(lease).cancel == "enough"

    def test_what_ended_otherwise_stays_so(self, books: Books) -> None:
        lease = books.held()
        (dispatch_id,) = books.accept()
        books.complete(books.claimed(lease))
        with pytest.raises(NotPossible):
            cancel(books, dispatch_id)
        with pytest.raises(Unknown):
            cancel(books, "nothing")
        assert books.ends(dispatch_id) == ["dispatch_completed"]


def cancel(books: Books, dispatch_id: str) -> str:
    return operations.cancel(books.ledger, books.settings, dispatch_id, "enough")


class TestReplay:
    def test_a_dead_one_begins_anew_in_its_old_place(self, books: Books) -> None:
        lease = books.held()
        (dead,) = books.accept()
        late = books.claimed(lease)
        assert books.fail(late, FOR_GOOD) == "dead"
        books.accept()
        assert operations.replay(books.ledger, books.settings, dead) == "queued"
        again = books.claimed(lease)
        assert (again.dispatch_id, again.attempt) == (dead, 2)
        with pytest.raises(Fenced):
            books.complete(late)
        assert books.complete(again) == "completed"
        assert books.ends(dead) == ["dispatch_dead", "dispatch_completed"]
        assert books.record(dead)["generation"] == "2"

    def test_a_new_generation_has_attempts_of_its_own(self, books: Books) -> None:
        lease = books.held()
        (dead,) = books.accept()
        books.fail(books.claimed(lease), FOR_GOOD)
        operations.replay(books.ledger, books.settings, dead)
        states = []
        for _ in range(3):
            states.append(books.fail(books.claimed(lease)))
            books.reclaim()
        assert states == ["retrying", "retrying", "dead"]

    def test_only_a_dead_one_is_replayed(self, books: Books) -> None:
        (dispatch_id,) = books.accept()
        cancel(books, dispatch_id)
        with pytest.raises(NotPossible, match="only a dead one"):
            operations.replay(books.ledger, books.settings, dispatch_id)
        with pytest.raises(Unknown):
            operations.replay(books.ledger, books.settings, "nothing")
