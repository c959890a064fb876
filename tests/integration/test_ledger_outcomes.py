"""Every outcome is told to whoever asked for it: however it came about, and to whomever it goes."""

from collections.abc import Callable
from typing import Any

import pytest

from fleet.delivery.claims import AttemptResult, report
from fleet.delivery.delivery_worker import DeliveryWorker, due
from fleet.delivery.message import message
from fleet.intake.intake import UPSTREAM
from fleet.ledger import Ending, State, operations, views
from fleet.store import Store, keys
from fleet.store.calls import DeliverDueCall
from tests.fixtures.ledger import FOR_GOOD, OUTAGE, Books, Twice
from tests.fixtures.outcomes import ACK, KEEP_MS, RECEIVER, end, make, taken, told
from tests.fixtures.processes import wait_until


def die(books: Books) -> str:
    (dispatch_id,) = books.accept()
    assert end(books, Ending(failure=FOR_GOOD)) == State.DEAD
    return dispatch_id


def stop_in_mid_turn(books: Books) -> str:
    (dispatch_id,) = books.accept()
    books.claimed(books.held())
    operations.cancel(books.ledger, books.settings, dispatch_id, "enough", now=True)
    return dispatch_id


def give_up_at_a_step(books: Books) -> str:
    (dispatch_id,) = books.accept()
    assert end(books, Ending(cancelled="enough")) == State.CANCELLED
    return dispatch_id


def cancel_waiting(books: Books) -> str:
    (dispatch_id,) = books.accept()
    operations.cancel(books.ledger, books.settings, dispatch_id, "enough")
    return dispatch_id


def lose_three_workers(books: Books) -> str:
    (dispatch_id,) = books.accept()
    lease = books.held()
    for _ in range(3):
        books.claimed(lease)
    assert books.claim(lease) is None
    return dispatch_id


def expire_in_the_queue(books: Books) -> str:
    (dispatch_id,) = books.accept()
    books.store.client.zadd("fleet:deadlines", {dispatch_id: 0})
    books.reclaim()
    return dispatch_id


def expire_at_the_claim(books: Books) -> str:
    (dispatch_id,) = books.accept()
    books.store.client.hset(keys.dispatch(dispatch_id), "deadline_ms", "0")
    assert books.claim(books.held()) is None
    return dispatch_id


def make_room(books: Books) -> str:
    first, _ = books.accept()[0], books.accept()
    return first


def be_interrupted(books: Books) -> str:
    first, _ = books.accept(session="s")[0], books.accept(session="s")
    return first


def share_a_dead_turn(books: Books) -> str:
    first, second = books.accept(session="s")[0], books.accept(session="s")[0]
    # Not before: between a call and its repetition the window would end.
    quiet: Any = books.store.client.zrange("fleet:quiet", 0, -1, withscores=True)
    wait_until(lambda: books.store.clock.now_ms() > max(until_ms for _, until_ms in quiet))
    books.reclaim()
    claim = books.claimed(books.held())
    books.fail(claim, FOR_GOOD)
    assert told(books, first)["data"]["state"] == "dead"
    return second


def fail_together(books: Books) -> str:
    mine, _ = books.accept(["a", "b"])
    end(books, Ending(failure=FOR_GOOD), "b")
    return mine


WAYS: list[tuple[Callable[[Books], str], str, str | None, str, dict[str, Any]]] = [
    (die, "dead", "llm", "no such model", {}),
    (give_up_at_a_step, "cancelled", None, "enough", {}),
    (stop_in_mid_turn, "cancelled", None, "enough", {}),
    (cancel_waiting, "cancelled", None, "enough", {}),
    (lose_three_workers, "dead", "worker_lost", "the worker died in mid-turn (3 times)", {}),
    (expire_in_the_queue, "expired", "expired", "its deadline passed", {}),
    (expire_at_the_claim, "expired", "expired", "its deadline passed", {}),
    (
        make_room,
        "dropped",
        "admission",
        "a newer event",
        {"max_pending": 1, "overflow": "drop_oldest"},
    ),
    (be_interrupted, "cancelled", None, "interrupted by a newer", {"on_busy": "interrupt"}),
    (share_a_dead_turn, "dead", "llm", "no such model", {"on_busy": "coalesce"}),
    (fail_together, "cancelled", None, "b failed", {}),
]


@pytest.mark.parametrize(("way", "state", "stage", "reason", "agent"), WAYS)
def test_a_bad_end_is_told_beside_its_final_state(
    store: Store,
    way: Callable[[Books], str],
    state: str,
    stage: str | None,
    reason: str,
    agent: dict[str, Any],
) -> None:
    sessions = {"coalesce_window_s": 1, "coalesce_max_s": 1}
    repeated = Twice(store.client, 10_000, wakes=True)
    books = make(repeated, a=agent, sessions=sessions, routes={"on_member_failure": "cancel"})
    dispatch_id = way(books)
    assert books.state(dispatch_id) == state, "final at once"
    assert books.ends(dispatch_id) == [f"dispatch_{state}"]
    said = told(books, dispatch_id)
    assert said["type"] == f"dispatch_{state}"
    data = said["data"]
    assert (data["dispatch_id"], data["state"], data["stage"]) == (dispatch_id, state, stage)
    assert data["reason"].startswith(reason)
    assert "answer" not in data
    assert books.record(dispatch_id)["verification"] == "ack"
    assert books.ends(dispatch_id) == [f"dispatch_{state}"], "no second outcome"
    assert due(books.store, books.settings) == []


def test_beat_rings_for_a_bad_end_at_once(store: Store) -> None:
    books = make(Store(store.client, 10_000, wakes=True))
    dispatch_id = die(books)
    assert due(books.store, books.settings) == [[dispatch_id, "crm"]]


def test_a_receiver_hears_only_of_what_it_asked_for(store: Store) -> None:
    books = make(store, receiver={**RECEIVER, "on": ["dead", "expired"]})
    (fine,) = books.accept()
    assert end(books, Ending(answer="done")) == State.COMPLETED
    assert taken(books, fine) is None
    assert taken(books, cancel_waiting(books)) is None
    assert told(books, die(books))["data"]["state"] == "dead"


def test_a_change_of_the_configuration_is_for_later_events(store: Store) -> None:
    old, new = make(store), make(store, a={"deliver": []})
    before, after = old.accept()[0], new.accept()[0]
    assert end(new, Ending(answer="done")) == State.ANNOUNCING
    assert end(new, Ending(answer="done")) == State.COMPLETED
    assert (old.state(before), old.state(after)) == ("announcing", "completed")


def test_a_dead_letter_replayed_before_it_was_told_is_told_and_so_is_its_next_end(
    store: Store,
) -> None:
    books = make(store)
    dispatch_id = die(books)
    operations.replay(books.ledger, books.settings, dispatch_id)
    assert end(books, Ending(answer="done")) == State.ANNOUNCING
    names = sorted(name for name, _ in due(store, books.settings))
    assert names == [f"{dispatch_id}.1"], "the first end is due, the second is with its worker"
    dead, done = taken(books, names[0]), taken(books, dispatch_id)
    assert dead
    assert done
    assert (dead.message_id, done.message_id) == (f"{dispatch_id}.1.crm", f"{dispatch_id}.2.crm")
    first, second = message(dead)["data"], message(done)["data"]
    assert (first["state"], first["generation"], first["attempt"]) == ("dead", 1, 1)
    assert (second["state"], second["generation"], second["attempt"]) == ("completed", 2, 2)
    assert report(store, dead, ACK, KEEP_MS) is None
    assert books.state(dispatch_id) == "announcing", "the word is for the first end only"
    assert "verification" not in books.record(dispatch_id)
    assert report(store, done, ACK, KEEP_MS) is None
    assert books.state(dispatch_id) == "completed"


def test_a_dead_letter_replayed_while_it_is_sent_is_not_sent_again(store: Store) -> None:
    books = make(store)
    dispatch_id = die(books)
    sent = taken(books, dispatch_id)
    assert sent
    operations.replay(books.ledger, books.settings, dispatch_id)
    assert report(store, sent, ACK, KEEP_MS) is None
    (verified,) = books.bus("delivery_verified")
    assert verified.fields["verification"] == "ack"
    assert taken(books, f"{dispatch_id}.1") is None
    assert books.state(dispatch_id) == "queued"


def test_what_is_still_to_be_told_is_kept(store: Store) -> None:
    short = {"retention": {"completed_s": 0.001, "dead_s": 0.001}}
    books = make(store, fleet=short)
    dead, cancelled = die(books), cancel_waiting(books)
    wait_until(lambda: int(store.client.zcount(keys.DEAD, 0, "+inf")) == 1)
    assert operations.purge(books.ledger, books.settings) == 0
    assert (books.state(dead), books.state(cancelled)) == ("dead", "cancelled")
    told(books, dead)
    told(books, cancelled)
    assert operations.purge(books.ledger, books.settings) == 1
    wait_until(lambda: bool(books.sweep()) and not books.state(cancelled))
    assert not books.state(dead)


def test_unverified_is_no_success(store: Store) -> None:
    books = make(store)
    for sample in (AttemptResult(kind="unverified", reason="silence"), ACK):
        (dispatch_id,) = books.accept()
        end(books, Ending(answer="done"))
        store.client.hset("fleet:target:crm", "next_ms", "0")
        found = taken(books, dispatch_id)
        assert found
        report(store, found, sample, KEEP_MS)
    totals: Any = store.client.hgetall("fleet:totals")
    assert (totals["a|outcome.completed"], totals["a|outcome.unverified"]) == ("1", "1")
    row = views.counts(store, ["a"])["a"]
    assert (row["states"], row["unverified"]) == ({"completed": 2}, 1)
    assert views.totals(store) == {"completed": 2}


@pytest.mark.parametrize(("how", "outcome"), [("approve", "completed"), ("REJECT: no", "rejected")])
def test_of_a_chain_its_end_is_told(store: Store, how: str, outcome: str) -> None:
    chains = {"c": {"stages": ["a", "b"], "deliver": ["crm"]}}
    books = make(store, chains=chains)
    (first,) = books.accept("chain:c")
    assert end(books, Ending(answer="the draft")) == State.COMPLETED, "a stage waits for nobody"
    assert taken(books, first) is None
    last = keys.stage_dispatch_id(f"fleet\n{books.record(first)['event_id']}", "c", 2, 1, "b")
    assert end(books, Ending(answer=how), "b") == State.COMPLETED
    said = told(books, last)
    data = said["data"]
    assert (said["type"], data["chain"], data["state"]) == ("chain_ended", "c", outcome)
    assert data.get("answer") == (how if outcome == "completed" else None)
    assert [(one["agent"], one["answer"]) for one in data["stages"]] == [
        ("a", "the draft"),
        ("b", how),
    ]
    assert due(store, books.settings) == []


def test_only_what_came_from_the_gateway_goes_back_there(store: Store) -> None:
    books = make(store, a={"deliver": []}, chains={"c": {"stages": ["a"]}})
    forged = {"to": "a", "text": "x", "source": "upstream", "data": {"upstream": True}}
    books.intake.accept(forged)
    assert end(books, Ending(answer="done")) == State.COMPLETED
    back = books.intake.accept({"to": "a", "text": "x", "id": "e1"}, UPSTREAM)
    assert end(books, Ending(answer="done")) == State.ANNOUNCING
    ((dispatch_id, _),) = back.dispatches
    DeliveryWorker(store, books.settings, lambda: books.intake).deliver(dispatch_id)
    assert due(store, books.settings) == [], "nobody is rung in vain"
    upstream = DeliverDueCall(
        limit=9, again_ms=5000, queue_max=0, keep_ended_ms=KEEP_MS, target="upstream"
    )
    assert store.run(upstream) == [0, f"{dispatch_id} upstream"]
    assert told(books, dispatch_id, "upstream")["data"]["answer"] == "done"
    assert books.state(dispatch_id) == "completed"
    books.intake.accept({"to": "chain:c", "text": "x", "id": "e2"}, UPSTREAM)
    end(books, Ending(failure=FOR_GOOD))
    _, of_chain = store.run(upstream)
    assert told(books, str(of_chain).split()[0], "upstream")["data"]["state"] == "dead"


def test_a_gateway_that_nobody_asks_any_more_ends_at_its_deadline(store: Store) -> None:
    books = make(store, a={"deliver": []}, upstream={"deadline_s": 0.001})
    back = books.intake.accept({"to": "a", "text": "x"}, UPSTREAM)
    end(books, Ending(answer="done"))
    ((dispatch_id, _),) = back.dispatches

    def ended() -> bool:
        due(store, books.settings)
        return books.state(dispatch_id) == "completed"

    wait_until(ended)
    assert books.record(dispatch_id)["verification"] == "timeout_fallback"


def test_a_receiver_asks_for_peace(store: Store) -> None:
    books = make(store, receiver={**RECEIVER, "deadline_s": 60})
    (dispatch_id,) = books.accept("a")
    end(books, Ending(answer="done"))
    found = taken(books, dispatch_id)
    assert found
    busy = AttemptResult(kind="failed", reason="HTTP 503", retry_after_s=2.5)
    assert report(store, found, busy, KEEP_MS) == 2500
    store.client.hset("fleet:target:crm", "next_ms", "0")
    found = taken(books, dispatch_id)
    assert found
    for_hours = AttemptResult(kind="failed", reason="HTTP 429", retry_after_s=7200)
    wait_ms = report(store, found, for_hours, KEEP_MS)
    assert wait_ms
    assert 50_000 < wait_ms <= 55_000, "tried once more before its time is over"


def test_an_outage_is_retried_and_told_only_when_it_is_over(store: Store) -> None:
    books = make(store, a={"retry": {"attempts": 2, "backoff_s": 0, "min_age_s": 0}})
    (dispatch_id,) = books.accept("a")
    assert end(books, Ending(failure=OUTAGE)) == State.RETRYING
    assert taken(books, dispatch_id) is None
    books.reclaim()
    assert end(books, Ending(failure=OUTAGE)) == State.DEAD
    assert told(books, dispatch_id)["data"]["attempt"] == 2
