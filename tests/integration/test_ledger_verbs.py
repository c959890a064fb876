"""The verbs of the ledger, one by one; and each as when its reply was lost and it is repeated."""

import threading
from dataclasses import replace

import pytest

from fleet.errors import Fenced, IdempotencyConflict, Refused
from fleet.intake.intake import Submission
from fleet.ledger import Claim, Ending, Failure, FailureStage, LeaseToken, operations
from fleet.store import Store, keys
from tests.fixtures.ledger import FOR_GOOD, OUTAGE, Books, Twice, contents, impatient, settings_for
from tests.fixtures.processes import wait_until


@pytest.fixture(params=["once", "repeated"])
def books(request: pytest.FixtureRequest, store: Store) -> Books:
    return impatient(store, repeated=request.param == "repeated")


def moves(books: Books, dispatch_id: str) -> list[str]:
    """Entries of the bus about one dispatch."""
    return [
        entry.type.removeprefix("dispatch_")
        for entry in books.bus()
        if entry.fields.get("dispatch_id") == dispatch_id
    ]


class TestAccept:
    def test_accepted_means_due_rung_and_on_the_bus(self, books: Books) -> None:
        accepted = books.intake.accept({"id": "1", "to": ["a", "b"], "text": "x"})
        (one, _), (other, _) = accepted.dispatches
        assert [agent for _, agent in accepted.dispatches] == ["a", "b"]
        assert not accepted.duplicate
        assert books.state(one) == books.state(other) == "queued"
        assert (books.wakeups("a"), books.wakeups("b")) == (1, 1)
        assert [entry.type for entry in books.bus()] == [
            "event_accepted",
            "dispatch_queued",
            "dispatch_queued",
        ]

    def test_ids_follow_from_the_event(self, books: Books) -> None:
        (dispatch_id,) = books.accept(id="1", source="s")
        assert dispatch_id == keys.dispatch_id("s\n1", "a")

    def test_the_same_event_is_accepted_once(self, books: Books) -> None:
        first = books.intake.accept({"id": "1", "to": ["a", "b"], "text": "x"})
        before = contents(books.store)
        second = books.intake.accept({"id": "1", "to": ["a", "b"], "text": "x"})
        assert second.duplicate
        assert second.dispatches == first.dispatches
        with pytest.raises(IdempotencyConflict):
            books.intake.accept({"id": "1", "to": "c", "text": "changed"})
        assert contents(books.store) == before

    def test_the_same_id_of_another_source_is_another_event(self, books: Books) -> None:
        assert books.accept(id="1", source="s") != books.accept(id="1", source="t")

    def test_a_full_agent_refuses_the_whole_event(self, books: Books) -> None:
        for _ in range(3):
            books.accept("a")
        before = contents(books.store)
        with pytest.raises(Refused, match="a has 3 events waiting"):
            books.accept(["b", "a"])
        assert contents(books.store) == before

    def test_in_a_batch_one_refusal_does_not_touch_the_others(self, books: Books) -> None:
        raws = [{"to": to, "text": "x"} for to in ("a", "nobody", "a", "a", "a", "b")]
        answers = books.intake.accept_batch(
            [Submission(one) for one in (*raws, {"to": "a"}, "junk")]
        )
        kinds = [type(answer).__name__ for answer in answers]
        assert kinds == [
            *("Accepted", "UnknownTarget", "Accepted", "Accepted", "Refused", "Accepted"),
            *("InvalidEvent", "InvalidEvent"),
        ]

    def test_many_at_once_are_one_event(self, books: Books) -> None:
        barrier, answers = threading.Barrier(20), []

        def send() -> None:
            barrier.wait()
            answers.append(books.intake.accept({"id": "1", "to": ["a", "b"], "text": "x"}))

        threads = [threading.Thread(target=send) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({answer.dispatches for answer in answers}) == 1
        assert len(books.bus("event_accepted")) == 1
        if not isinstance(books.store, Twice):
            assert [answer.duplicate for answer in answers].count(False) == 1


class TestClaim:
    def test_by_lane_then_by_age(self, books: Books) -> None:
        lease = books.held()
        middle, last = books.accept(), books.accept(priority=1)
        first = books.accept(priority=9)
        found = []
        for _ in range(3):
            claim = books.claimed(lease)
            found.append([claim.dispatch_id])
            books.complete(claim)
        assert found == [first, middle, last]
        assert books.claim(lease) is None

    def test_an_agents_dispatches_are_its_own(self, books: Books) -> None:
        books.accept("b")
        assert books.claim(books.held("a")) is None

    def test_the_event_comes_along_as_it_was_accepted(self, books: Books) -> None:
        books.accept(text="tell\u2028me ☃", id="1", source="s", subject="x", data={"n": [1, None]})
        claim = books.claimed(books.held())
        assert (claim.event.text, claim.event.data) == ("tell\u2028me ☃", {"n": [1, None]})
        assert (claim.event.key, claim.event.subject, claim.attempt) == ("s\n1", "x", 1)

    def test_an_interrupted_one_runs_again_before_any_other(self, books: Books) -> None:
        lease = books.held()
        (first,) = books.accept()
        assert books.claimed(lease).dispatch_id == first
        books.accept(priority=9)
        again = books.claimed(lease)
        assert (again.dispatch_id, again.attempt) == (first, 2)
        assert moves(books, first) == ["queued", "started", "failed", "started"]
        (lost,) = books.bus("dispatch_failed")
        assert lost.fields["stage"] == "worker_lost"
        assert lost.fields["will_retry"] is True

    def test_what_kills_its_worker_is_buried_at_the_third_time(self, books: Books) -> None:
        lease = books.held()
        (poison,), (neighbour,) = books.accept(), books.accept()
        for attempt in (1, 2, 3):
            claim = books.claimed(lease)
            assert (claim.dispatch_id, claim.attempt) == (poison, attempt)
        assert books.claimed(lease).dispatch_id == neighbour
        assert books.ends(poison) == ["dispatch_dead"]
        assert books.record(poison)["stage"] == "worker_lost"

    def test_an_overdue_one_expires_instead(self, books: Books) -> None:
        lease = books.held()
        (late,), (good,) = books.accept(), books.accept()
        books.store.client.hset(keys.dispatch(late), "deadline_ms", 1)
        assert books.claimed(lease).dispatch_id == good
        assert books.ends(late) == ["dispatch_expired"]

    def test_only_the_holder_claims(self, books: Books) -> None:
        old = books.held()
        books.accept()
        old.release()
        old.fence = 1
        with pytest.raises(Fenced):
            books.claim(old)
        new = books.held()
        with pytest.raises(Fenced):
            books.claim(old)
        assert books.claimed(new).fence == 2

    def test_nobody_claims_under_a_lease_that_ran_out(self, books: Books) -> None:
        lease = books.held()
        books.accept()
        books.store.client.delete(keys.lease("a"))
        with pytest.raises(Fenced):
            books.claim(lease)

    def test_a_paused_agent_starts_nothing(self, books: Books) -> None:
        lease = books.held()
        books.accept()
        assert operations.pause(books.ledger, "a")
        assert not operations.pause(books.ledger, "a")
        assert books.claim(lease) is None
        assert operations.resume(books.ledger, "a")
        assert books.claimed(lease).attempt == 1


class TestStep:
    def test_journals_and_says_why_to_cancel(self, books: Books) -> None:
        lease = books.held()
        (dispatch_id,) = books.accept()
        claim = books.claimed(lease)
        assert books.ledger.step(claim, "1", '{"a": 1}') == ""
        operations.cancel(books.ledger, books.settings, dispatch_id, "enough")
        assert books.ledger.step(claim, "2", '{"b": 1}') == "enough"
        assert books.ledger.steps(dispatch_id) == {"1": '{"a": 1}', "2": '{"b": 1}'}

    def test_is_refused_to_an_old_attempt(self, books: Books) -> None:
        lease = books.held()
        books.accept()
        old = books.claimed(lease)
        books.claimed(lease)
        with pytest.raises(Fenced):
            books.ledger.step(old, "1", "{}")


class TestCommit:
    @pytest.fixture
    def claim(self, books: Books) -> Claim:
        lease = books.held()
        books.accept()
        return books.claimed(lease)

    def test_completes_once(self, books: Books, claim: Claim) -> None:
        assert books.complete(claim, "the answer") == "completed"
        assert books.ends(claim.dispatch_id) == ["dispatch_completed"]
        assert books.store.client.get(keys.outcome(claim.dispatch_id)) == "the answer"
        before = contents(books.store)
        assert books.complete(claim, "another answer") == "completed"
        assert books.fail(claim) == "completed"
        assert contents(books.store) == before

    def test_keeps_the_facts(self, books: Books, claim: Claim) -> None:
        ending = Ending(answer="x", facts={"tokens_in": 3, "usd": "0.500000", "model": "m"})
        books.ledger.commit(claim, ending)
        record = books.record(claim.dispatch_id)
        assert (record["tokens_in"], record["usd"], record["model"]) == ("3", "0.500000", "m")

    def test_a_retryable_failure_waits_and_comes_back(self, books: Books, claim: Claim) -> None:
        assert books.fail(claim) == "retrying"
        assert books.ends(claim.dispatch_id) == []
        books.reclaim()
        assert books.state(claim.dispatch_id) == "queued"
        lease = books.lease_of(claim)
        assert books.claimed(lease).attempt == 2

    def test_a_permanent_failure_is_dead_at_once(self, books: Books, claim: Claim) -> None:
        assert books.fail(claim, FOR_GOOD) == "dead"
        assert books.ends(claim.dispatch_id) == ["dispatch_dead"]
        (failed,) = books.bus("dispatch_failed")
        assert failed.fields["will_retry"] is False
        assert failed.fields["reason"] == "no such model"

    def test_what_completes_after_all_shows_no_error(self, books: Books, claim: Claim) -> None:
        books.fail(claim)
        books.reclaim()
        assert books.record(claim.dispatch_id)["error"] == OUTAGE.reason
        assert books.complete(books.claimed(books.lease_of(claim))) == "completed"
        record = books.record(claim.dispatch_id)
        assert not {"stage", "error", "retryable", "retry_at_ms"} & record.keys()
        (failed,) = books.bus("dispatch_failed")
        assert failed.fields["reason"] == OUTAGE.reason

    def test_attempts_run_out(self, books: Books, claim: Claim) -> None:
        lease = books.lease_of(claim)
        states = [books.fail(claim)]
        for _ in range(2):
            books.reclaim()
            states.append(books.fail(books.claimed(lease)))
        assert states == ["retrying", "retrying", "dead"]

    def test_a_young_one_is_not_given_up(self, store: Store) -> None:
        retry = {"attempts": 1, "backoff_s": 0, "min_age_s": 600}
        books = Books(store, settings_for("a", retry=retry))
        lease = books.held()
        (dispatch_id,) = books.accept()
        assert books.fail(books.claimed(lease)) == "retrying"
        books.reclaim()
        store.client.hset(keys.dispatch(dispatch_id), "accepted_ms", 1)
        assert books.fail(books.claimed(lease)) == "dead"

    def test_a_wait_beyond_the_deadline_is_dead_at_once(self, books: Books, claim: Claim) -> None:
        patient = Failure(stage=FailureStage.LLM, reason="429", retryable=True, retry_after_s=3601)
        assert books.fail(claim, patient) == "dead"

    def test_retry_after_is_obeyed(self, books: Books, claim: Claim) -> None:
        patient = Failure(stage=FailureStage.LLM, reason="429", retryable=True, retry_after_s=1000)
        assert books.fail(claim, patient) == "retrying"
        (failed,) = books.bus("dispatch_failed")
        assert failed.fields["retry_at"] > 1000 + float(failed.id.partition("-")[0]) / 1000 - 1
        assert books.reclaim()["retried"] == 0

    def test_a_wait_that_a_models_provider_asks_for_uses_up_no_attempt(self, store: Store) -> None:
        books = Books(
            store, settings_for("a", retry={"attempts": 1, "backoff_s": 0, "min_age_s": 0})
        )
        lease = books.held()
        books.accept()
        patient = Failure(stage=FailureStage.LLM, reason="429", retryable=True, retry_after_s=0.001)
        for _ in range(3):
            assert books.fail(books.claimed(lease), patient) == "retrying"
            wait_until(lambda: books.reclaim()["retried"] == 1)
        assert books.fail(books.claimed(lease)) == "dead"

    def test_losses_are_counted_apart_from_failures(self, books: Books, claim: Claim) -> None:
        lease = books.lease_of(claim)
        twice_lost = [books.claimed(lease) for _ in range(2)][-1]
        states = [books.fail(twice_lost)]
        for _ in range(2):
            books.reclaim()
            states.append(books.fail(books.claimed(lease)))
        assert states == ["retrying", "retrying", "dead"]

    def test_an_old_attempt_is_refused(self, books: Books, claim: Claim) -> None:
        lease = books.lease_of(claim)
        new = books.claimed(lease)
        before = contents(books.store)
        with pytest.raises(Fenced):
            books.complete(claim)
        assert contents(books.store) == before
        assert books.complete(new) == "completed"

    def test_an_old_token_is_refused(self, books: Books, claim: Claim) -> None:
        """Even while the new holder has not claimed yet."""
        books.store.client.delete(keys.lease("a"))
        lease = books.held()
        with pytest.raises(Fenced):
            books.complete(claim)
        assert books.claimed(lease).dispatch_id == claim.dispatch_id

    def test_the_parent_speaks_for_a_killed_child(self, books: Books, claim: Claim) -> None:
        ending = Ending(failure=OUTAGE)
        token = LeaseToken(
            agent="a", fence=claim.fence, lease=claim.lease, holder="host:1", epoch=""
        )
        for other in (replace(token, fence=claim.fence + 1), replace(token, lease="another")):
            assert books.ledger.commit_active(other, ending) is None
        assert books.ledger.commit_active(token, ending) == "retrying"
        assert books.ledger.commit_active(token, ending) is None
        before = contents(books.store)
        assert books.complete(claim) == "retrying"
        assert contents(books.store) == before

    def test_a_cancelled_turn_that_fails_is_cancelled(self, books: Books, claim: Claim) -> None:
        """Nobody waits for another attempt of what was cancelled."""
        operations.cancel(books.ledger, books.settings, claim.dispatch_id, "enough")
        assert books.fail(claim) == "cancelled"
        assert books.ends(claim.dispatch_id) == ["dispatch_cancelled"]
