"""People in chains: a parked dispatch is decided once, in time, by whoever is first."""

import threading

import pytest

from fleet.ledger import State, operations
from fleet.ledger.operations import NotPossible, Unknown
from fleet.store import keys
from routing import Verdict
from tests.fixtures.chains import MakeBooks, Run

REJECT = Verdict.REJECT


def test_a_parked_dispatch_holds_nothing_and_says_where_to_answer(books: MakeBooks) -> None:
    run = Run(books("human:ops", "archie"))
    parked = run.dispatch(1, "human:ops")
    (told,) = run.books.bus("dispatch_parked")
    (alert,) = run.books.bus("alert")
    for entry in (told, alert):
        assert entry.fields["dispatch_id"] == parked
        assert f"fleet approve {parked}" in str(entry.fields["reason"])
    assert alert.fields["name"] == "approval_needed"
    assert not run.books.store.client.exists(keys.due("human:ops"), keys.agent("human:ops"))
    assert run.decide(1, "ops", reason="go ahead") == State.COMPLETED
    claim = run.answer("archie", "x")
    assert claim.chain_position is not None
    assert [(one.agent, one.answer) for one in claim.chain_position.earlier] == [
        ("human:ops", "go ahead")
    ]


def test_a_rejection_ends_the_chain(books: MakeBooks) -> None:
    run = Run(books("human:ops", "archie"))
    assert run.decide(1, "ops", REJECT, reason="too late in the week") == State.CANCELLED
    assert run.ended == ("rejected", "stage 1 (human:ops) rejects")
    record = run.books.record(run.dispatch(1, "human:ops"))
    assert (record["verdict"], record["decided_by"]) == ("reject", "ops")
    assert record["error"] == "too late in the week"


def test_a_retry_of_a_parked_one_says_who_decides(books: MakeBooks) -> None:
    run = Run(books("human:ops"))
    parked = run.dispatch(1, "human:ops")
    with pytest.raises(NotPossible, match="waits for a person: decide it with `fleet approve`"):
        operations.replay(run.books.ledger, run.books.settings, parked)
    run.decide(1, "ops")
    with pytest.raises(NotPossible, match="is completed: only a dead one, or a retrying one,"):
        operations.replay(run.books.ledger, run.books.settings, parked)


def test_the_second_is_told_who_was_first(books: MakeBooks) -> None:
    run = Run(books("human:ops"))
    run.decide(1, "ops", by="ann")
    with pytest.raises(NotPossible, match=r"was approved by ann at 20.*Z: it is decided only"):
        run.decide(1, "ops", REJECT, by="bob", reason="no")
    assert run.ended == ("completed", "every stage is through")


def test_what_is_not_parked_cannot_be_decided(books: MakeBooks) -> None:
    run = Run(books("archie"))
    with pytest.raises(NotPossible, match="is queued, not parked"):
        operations.decide(
            *(run.books.ledger, run.books.settings, run.dispatch(1, "archie")),
            *(Verdict.APPROVE,),
            by="ann",
        )
    with pytest.raises(Unknown):
        run.decide(9, "nobody")


def test_one_that_has_just_expired_is_refused(books: MakeBooks) -> None:
    made = books("human:ops", human_deadline_s=0.02, on_failure="skip")
    run = Run(made)
    deadline_ms = float(made.record(run.dispatch(1, "human:ops"))["deadline_ms"])
    while True:
        seconds, micros = made.store.client.time()
        if seconds * 1000 + micros / 1000 > deadline_ms + 2:
            break
    with pytest.raises(NotPossible, match=r"expired at 20.*Z, before anybody decided"):
        run.decide(1, "ops")
    # Nobody's silence approves, not even where failures are skipped.
    assert run.ended == ("expired", "stage 1 (human:ops) was not done in time")
    assert made.ends(run.dispatch(1, "human:ops")) == ["dispatch_expired"]


def test_beat_expires_it_too(books: MakeBooks) -> None:
    made = books("human:ops", human_deadline_s=0.001)
    run = Run(made)
    while not made.reclaim()["expired"] and run.ended is None:
        pass
    assert run.ended == ("expired", "stage 1 (human:ops) was not done in time")


def test_many_at_once_and_one_of_them_decides(books: MakeBooks) -> None:
    run = Run(books("human:ops", "archie"))
    barrier, done, refused = threading.Barrier(16), [], []

    def decide(number: int) -> None:
        barrier.wait()
        verdict = Verdict.APPROVE if number % 2 else REJECT
        try:
            run.decide(1, "ops", verdict, by=f"p{number}", reason="x")
            done.append(number)
        except NotPossible as error:
            refused.append(str(error))

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), len(refused)) == (1, 15)
    assert all(f"by p{done[0]} " in sentence for sentence in refused)
    assert len(run.books.ends(run.dispatch(1, "human:ops"))) == 1
    assert run.state(2, "archie") == ("queued" if done[0] % 2 else "")


def test_cancelling_a_parked_one_cancels_the_chain(books: MakeBooks) -> None:
    run = Run(books("human:ops", "archie"))
    operations.cancel(run.books.ledger, run.books.settings, run.dispatch(1, "human:ops"), "no")
    assert run.ended == ("cancelled", "stage 1 (human:ops) was cancelled")
