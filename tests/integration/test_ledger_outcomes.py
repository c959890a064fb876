"""Every outcome is told to whoever asked for it: however it came about, and to whomever it goes."""

from collections.abc import Callable
from typing import Any

import pytest

from fleet import keys
from fleet.delivery.claims import Announced, Sample, claim, report
from fleet.delivery.courier import Courier, due
from fleet.delivery.handover import hand_over
from fleet.delivery.message import message
from fleet.ledger import Claim, Ending, State, operations, views
from fleet.settings import parse
from fleet.store import Store
from tests.fixtures.ledger import FOR_GOOD, OUTAGE, Books, Twice
from tests.fixtures.processes import wait_until

KEEP_MS = 60_000
ACK = Sample(kind="ack", reason="HTTP 204")
RECEIVER = {"webhook": "https://crm.example/", "secret": "sixteen bytes or more"}


def make(store: Store, *, receiver: Any = RECEIVER, **tables: Any) -> Books:
    """An agent `a` whose outcomes are told, and others whose are not."""
    agent = {"runner": "python", "python": "nobody:nothing", "retry": {"min_age_s": 0}}
    agents = {name: {**agent, **tables.pop(name, {})} for name in ("a", "b", "c")}
    agents["a"] = {"deliver": ["crm"], **agents["a"]}
    return Books(store, parse({"agents": agents, "deliveries": {"crm": receiver}, **tables}))


def taken(books: Books, dispatch_id: str, target: str = "crm") -> Announced | None:
    return claim(books.store, dispatch_id, target, 5.0, KEEP_MS)


def told(books: Books, dispatch_id: str, target: str = "crm") -> dict[str, Any]:
    """What its receiver is told, which then confirms it."""
    found = taken(books, dispatch_id, target)
    assert found, "it is not told"
    said = message(found)
    assert report(books.store, found, ACK, KEEP_MS) is None
    assert taken(books, dispatch_id, target) is None, "it is told once"
    return said


def end(books: Books, ending: Ending, agent: str = "a") -> State:
    lease = books.held(agent)
    try:
        return books.ledger.commit(books.claimed(lease), ending)
    finally:
        lease.release()


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
    books.store.client.zadd(keys.DEADLINES, {dispatch_id: 0})
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
    lease = books.held()
    claims: list[Claim | None] = []

    def claimed() -> bool:
        books.reclaim()
        claims.append(books.claim(lease))
        return claims[-1] is not None

    wait_until(claimed)
    assert claims[-1] is not None
    books.fail(claims[-1], FOR_GOOD)
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
    sessions = {"coalesce_window_s": 0.05, "coalesce_max_s": 0.05}
    repeated = Twice(store.client, 10_000, rings=True)
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
    books = make(Store(store.client, 10_000, rings=True))
    dispatch_id = die(books)
    assert due(books.store, books.settings) == [dispatch_id]


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


def test_a_replay_is_told_anew_and_the_end_before_it_no_more(store: Store) -> None:
    books = make(store)
    dispatch_id = die(books)
    late = taken(books, dispatch_id)
    assert late
    operations.replay(books.ledger, books.settings, dispatch_id)
    assert report(store, late, ACK, KEEP_MS) is None
    assert "verification" not in books.record(dispatch_id)
    assert end(books, Ending(answer="done")) == State.ANNOUNCING
    found = taken(books, dispatch_id)
    assert found
    assert (late.message_id, found.message_id) == (f"{dispatch_id}.1.crm", f"{dispatch_id}.2.crm")
    assert message(found)["data"]["answer"] == "done"
    report(store, found, ACK, KEEP_MS)
    assert books.state(dispatch_id) == "completed"


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
    for sample in (Sample(kind="unverified", reason="silence"), ACK):
        (dispatch_id,) = books.accept()
        end(books, Ending(answer="done"))
        found = taken(books, dispatch_id)
        assert found
        report(store, found, sample, KEEP_MS)
    totals: Any = store.client.hgetall(keys.TOTALS)
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
    back = books.intake.accept({"to": "a", "text": "x", "id": "e1"}, upstream=True)
    assert end(books, Ending(answer="done")) == State.ANNOUNCING
    ((dispatch_id, _),) = back.dispatches
    Courier(store, books.settings, lambda: books.intake).deliver(dispatch_id)
    assert due(store, books.settings) == [], "nobody is rung in vain"
    assert store.run("deliver_due", 9, 5000, 0, KEEP_MS, "upstream") == [0, dispatch_id]
    assert told(books, dispatch_id, "upstream")["data"]["answer"] == "done"
    assert books.state(dispatch_id) == "completed"
    books.intake.accept({"to": "chain:c", "text": "x", "id": "e2"}, upstream=True)
    end(books, Ending(failure=FOR_GOOD))
    _, of_chain = store.run("deliver_due", 9, 5000, 0, KEEP_MS, "upstream")
    assert told(books, of_chain, "upstream")["data"]["state"] == "dead"


def test_a_gateway_that_nobody_asks_any_more_ends_at_its_deadline(store: Store) -> None:
    books = make(store, a={"deliver": []}, upstream={"deadline_s": 0.001})
    back = books.intake.accept({"to": "a", "text": "x"}, upstream=True)
    end(books, Ending(answer="done"))
    ((dispatch_id, _),) = back.dispatches

    def ended() -> bool:
        due(store, books.settings)
        return books.state(dispatch_id) == "completed"

    wait_until(ended)
    assert books.record(dispatch_id)["verification"] == "timeout_fallback"


TO_B = {"agent": "b"}


def courier(books: Books) -> Courier:
    return Courier(books.store, books.settings, lambda: books.intake)


def handed(books: Books, **fields: Any) -> tuple[str, str]:
    """An answer of `a`, and the dispatch of `b` that it became."""
    (dispatch_id,) = books.accept("a", **fields)
    assert end(books, Ending(answer="the answer")) == State.ANNOUNCING
    courier(books).deliver(dispatch_id)
    courier(books).deliver(dispatch_id)
    (placed,) = {row["dispatch_id"] for row in views.find(books.store, agent="b").dispatches}
    return dispatch_id, placed


def test_an_agent_confirms_by_its_turn(store: Store) -> None:
    repeated = Twice(store.client, 10_000, rings=True)
    books = make(repeated, receiver=TO_B)
    dispatch_id, placed = handed(books, session="s", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    assert books.state(dispatch_id) == "announcing", "queued is not delivered"
    assert due(books.store, books.settings) == []
    claim = books.claimed(books.held("b"))
    assert (claim.dispatch_id, claim.text) == (placed, "the answer")
    event = claim.event
    assert (event.source, event.hops, event.session) == ("agent:a", 1, "s")
    assert event.data["outcome"]["dispatch_id"] == dispatch_id
    assert books.complete(claim) == State.COMPLETED
    assert books.record(dispatch_id)["verification"] == "ack"
    assert books.ends(dispatch_id) == ["dispatch_completed"]


def test_an_agent_that_fails_has_not_got_it(store: Store) -> None:
    books = make(Twice(store.client, 10_000, rings=True), receiver=TO_B)
    dispatch_id, placed = handed(books)
    assert end(books, Ending(failure=FOR_GOOD), "b") == State.DEAD
    record = books.record(dispatch_id)
    assert (record["state"], record["verification"]) == ("completed", "timeout_fallback")
    (verified,) = books.bus("delivery_verified")
    assert verified.fields["reason"] == f"b had it as {placed}, which is dead (no such model)"


@pytest.mark.parametrize("injected", ["echo", "timeout_fallback"])
def test_a_terminal_says_itself_what_it_saw(store: Store, injected: str) -> None:
    books = make(store, receiver=TO_B)
    dispatch_id, _ = handed(books)
    end(books, Ending(answer="ok", facts={"injected": injected}), "b")
    assert books.record(dispatch_id)["verification"] == injected


def test_a_courier_that_died_after_it_handed_over(store: Store) -> None:
    """The other one's turn is over before the next courier comes, and it has no second one."""
    books = make(store, receiver=TO_B)
    (dispatch_id,) = books.accept("a")
    end(books, Ending(answer="the answer"))
    lost = claim(store, dispatch_id, "crm", 0.0, KEEP_MS)
    assert lost
    assert hand_over(store, lambda: books.intake, lost, "b").kind == "placed"
    end(books, Ending(answer="ok"), "b")
    assert books.state(dispatch_id) == "announcing"
    store.client.hset(keys.delivery(dispatch_id), "crm|until_ms", "0")
    courier(books).deliver(dispatch_id)
    assert books.record(dispatch_id)["verification"] == "ack"
    assert len(views.find(store, agent="b").dispatches) == 1


def test_a_full_queue_is_a_failed_try(store: Store) -> None:
    books = make(store, receiver=TO_B, b={"max_pending": 1})
    books.accept("b")
    (dispatch_id,) = books.accept("a")
    end(books, Ending(answer="the answer"))
    courier(books).deliver(dispatch_id)
    seen = views.get(store, dispatch_id)
    assert seen
    assert seen["deliveries"][0]["reason"].startswith("b has 1 events waiting")
    end(books, Ending(answer="ok"), "b")
    store.client.hset("fleet:target:crm", "next_ms", "0")
    courier(books).deliver(dispatch_id)
    end(books, Ending(answer="ok"), "b")
    assert books.record(dispatch_id)["verification"] == "ack"


def test_a_deadline_bounds_what_an_agent_has(store: Store) -> None:
    books = make(store, receiver={**TO_B, "deadline_s": 0.5})
    dispatch_id, placed = handed(books)

    def ended() -> bool:
        due(store, books.settings)
        return books.state(dispatch_id) == "completed"

    wait_until(ended)
    assert books.record(dispatch_id)["verification"] == "timeout_fallback"
    end(books, Ending(answer="ok"), "b")
    assert books.state(placed) == "completed"
    assert len(books.bus("delivery_verified")) == 1, "a late word changes nothing"


def test_agents_that_tell_each_other_come_to_an_end(store: Store) -> None:
    agents = {
        name: {"runner": "python", "python": "nobody:nothing", "deliver": [f"to_{other}"]}
        for name, other in (("a", "b"), ("b", "a"))
    }
    deliveries = {"to_a": {"agent": "a"}, "to_b": {"agent": "b"}}
    settings = {"agents": agents, "deliveries": deliveries, "routes": {"max_hops": 3}}
    books = Books(store, parse(settings))
    books.accept("a")
    for agent in ("a", "b", "a", "b"):
        assert end(books, Ending(answer="and you?"), agent) == State.ANNOUNCING
        for row in views.find(store, states=["announcing"]).dispatches:
            courier(books).deliver(row["dispatch_id"])
    rows = views.find(store).dispatches
    assert {row["state"] for row in rows} == {"completed"}
    verified = sorted(row["verification"] for row in rows)
    assert verified == ["ack", "ack", "ack", "timeout_fallback"]


def test_a_receiver_asks_for_peace(store: Store) -> None:
    books = make(store, receiver={**RECEIVER, "deadline_s": 60})
    (dispatch_id,) = books.accept("a")
    end(books, Ending(answer="done"))
    found = taken(books, dispatch_id)
    assert found
    busy = Sample(kind="failed", reason="HTTP 503", retry_after_s=2.5)
    assert report(store, found, busy, KEEP_MS) == 2500
    store.client.hset("fleet:target:crm", "next_ms", "0")
    found = taken(books, dispatch_id)
    assert found
    for_hours = Sample(kind="failed", reason="HTTP 429", retry_after_s=7200)
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
