"""Work is tried again at once, and dead letters in bulk, by an operator."""

import pytest

from fleet.ledger import Failure, FailureStage, State, operations
from fleet.ledger.dead_letters import Filter, replay_some
from fleet.ledger.operations import NotPossible
from fleet.store import Store
from tests.fixtures.ledger import FOR_GOOD, Books, Twice, settings_for

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
        with pytest.raises(NotPossible, match=r"is completed: .* `fleet queue resend"):
            again(books, one)


class TestDeadLetters:
    def dead(self, books: Books, agent: str, failure: Failure = FOR_GOOD) -> str:
        lease = books.lease(agent)
        assert lease.acquire()
        (one,) = books.accept(agent)
        books.fail(books.claimed(lease), failure)
        lease.release()
        return one

    def replay(self, books: Books, limit: int = 1000, **chosen: object) -> tuple[list[str], bool]:
        done = replay_some(books.ledger, books.settings, Filter(**chosen), limit)  # type: ignore[arg-type]
        assert not done.refused
        assert all(books.state(one) == State.QUEUED for one in done.queued)
        return done.queued, done.more

    def test_by_agent_and_reason(self, books: Books) -> None:
        lost = Failure(stage=FailureStage.TOOL, reason="the Disk is full", retryable=False)
        first, other, full = (
            self.dead(books, "a"),
            self.dead(books, "b"),
            self.dead(books, "a", lost),
        )
        assert self.replay(books, agent="a", reason="disk") == ([full], False)
        assert self.replay(books, reason="tool") == ([], False)
        assert self.replay(books, agent="b", reads=lambda name: name == "a") == ([], False)
        assert self.replay(books, agent="b") == ([other], False)
        assert self.replay(books) == ([first], False)

    def test_the_oldest_first_up_to_a_limit(self, books: Books) -> None:
        ids = [self.dead(books, "a") for _ in range(5)]
        assert self.replay(books, 2) == (ids[:2], True)
        assert self.replay(books, 3) == (ids[2:], False)

    def test_since_a_moment(self, books: Books) -> None:
        old, new = self.dead(books, "a"), self.dead(books, "a")
        books.store.client.zincrby("fleet:dead", -60_000, old)
        since_ms = books.store.clock.now_ms() - 30_000
        assert self.replay(books, since_ms=since_ms) == ([new], False)
        assert books.state(old) == State.DEAD

    def test_one_that_cannot_be_replayed_stops_no_other(self, books: Books) -> None:
        gone, kept = self.dead(books, "a"), self.dead(books, "a")
        books.store.client.delete(f"fleet:payload:{books.record(gone)['event']}")
        done = replay_some(books.ledger, books.settings, Filter(), 10)
        assert (done.queued, [one for one, _ in done.refused]) == ([kept], [gone])
        assert "no longer kept" in done.refused[0][1]
