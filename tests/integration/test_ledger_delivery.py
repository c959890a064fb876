"""An announced outcome in the ledger, without the processes of the ledger."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.config.settings import parse
from fleet.delivery.throttle import AttemptKind, Throttle
from fleet.ledger import NOTHING, State, views
from fleet.store import Store, keys
from fleet.store.calls import CancelCall
from tests.fixtures.deliveries import (
    KEEP_MS,
    RECEIVER,
    announced,
    claim,
    due,
    make,
    past_due,
    report,
    samples,
)
from tests.fixtures.ledger import Books, Twice
from tests.fixtures.processes import wait_until

COMPLETED = "dispatch_completed"


@pytest.fixture(params=["once", "repeated"])
def books(request: pytest.FixtureRequest, store: Store) -> Books:
    return make(Twice(store.client, 10_000, wakes=True) if request.param == "repeated" else store)


def test_an_answer_is_announced_until_it_is_confirmed(books: Books) -> None:
    dispatch_id = announced(books)
    assert books.ends(dispatch_id) == []
    seen = views.get(books.store, dispatch_id, content=True)
    assert seen
    assert (seen["state"], seen["answer"]) == ("announcing", "the answer")
    assert seen["waiting_for"] == "a receiver of its outcome to confirm it"
    call = claim(books, dispatch_id)
    assert not claim(books, dispatch_id), "one sender at a time"
    assert report(books, dispatch_id, call, "ack") == ["ended", "completed"]
    assert not claim(books, dispatch_id), "what was confirmed is not sent again"
    (told,) = books.bus("delivery_verified")
    assert (told.fields["verification"], told.fields["name"]) == ("ack", "crm")
    assert books.ends(dispatch_id) == ["dispatch_completed"]
    assert books.record(dispatch_id)["verification"] == "ack"
    assert due(books) == [0]


def test_agent_and_session_go_on_while_an_outcome_is_announced(books: Books) -> None:
    first = announced(books, session="s")
    (second,) = books.accept("a", session="s")
    lease = books.held("a")
    assert books.claimed(lease).dispatch_id == second
    call = claim(books, first)
    report(books, first, call, "ack")
    assert books.state(second) == "active"
    assert books.state(first) == "completed"


def test_what_was_sent_and_not_confirmed_is_not_sent_again(books: Books) -> None:
    dispatch_id = announced(books)
    call = claim(books, dispatch_id)
    assert report(books, dispatch_id, call, "unverified") == ["ended", "completed"]
    assert not claim(books, dispatch_id)
    assert books.record(dispatch_id)["verification"] == "timeout_fallback"
    assert books.store.client.hgetall("fleet:totals")["a|delivery.timeout_fallback"] == "1"
    (end,) = books.bus("dispatch_completed")
    assert end.fields["verification"] == "timeout_fallback"


def test_a_sender_whose_time_is_over_changes_nothing(books: Books) -> None:
    dispatch_id = announced(books)
    late = claim(books, dispatch_id, lease_ms=1)
    calls: list[str] = []

    def again() -> str:
        calls.append(claim(books, dispatch_id))
        return calls[-1]

    wait_until(lambda: bool(again()))
    assert report(books, dispatch_id, late, "ack") == ["fenced"]
    assert books.state(dispatch_id) == "announcing"
    assert report(books, dispatch_id, calls[-1], "ack") == ["ended", "completed"]


def test_it_ends_with_the_last_of_its_receivers(store: Store) -> None:
    books = make(store, receivers=("crm", "log"))
    dispatch_id = announced(books)
    crm, log = claim(books, dispatch_id), claim(books, dispatch_id, "log")
    assert report(books, dispatch_id, crm, "unverified") == ["ended", "announcing"]
    assert report(books, dispatch_id, log, "ack", "log") == ["ended", "completed"]
    assert books.record(dispatch_id)["verification"] == "timeout_fallback"
    seen = views.get(store, dispatch_id)
    assert seen
    assert [(one["name"], one["verification"]) for one in seen["deliveries"]] == [
        ("crm", "timeout_fallback"),
        ("log", "ack"),
    ]


def test_a_deadline_holds_without_any_sender(store: Store) -> None:
    books = make(store, deadline_s=0.001)
    dispatch_id = announced(books)
    store.client.zadd("fleet:deliveries", {f"{dispatch_id} crm": 0})
    wait_until(lambda: due(books)[0] == 1)
    (told,) = books.bus("delivery_verified")
    assert told.fields["verification"] == "timeout_fallback"
    assert books.ends(dispatch_id) == ["dispatch_completed"]


def test_what_nobody_took_is_rung_for(books: Books) -> None:
    dispatch_id = announced(books)
    assert due(books) == [0], "its worker notifies first"
    past_due(books, dispatch_id)
    found = make(Store(books.store.client, 10_000, wakes=True))
    assert due(found) == [0, f"{dispatch_id} crm"]
    assert due(found) == [0], "not again at once"


def test_a_step_reports_its_verification_once(books: Books) -> None:
    lease = books.held()
    (dispatch_id,) = books.accept()
    claim = books.claimed(lease)
    for entry, how in (("{}", "echo"), ("{}", "echo"), ('{"other": 1}', "timeout_fallback")):
        books.ledger.step(claim, "2", entry, NOTHING, how, "why")
    told = [entry.fields for entry in books.bus("delivery_verified")]
    assert [(one["verification"], one["reason"]) for one in told] == [
        ("echo", "why"),
        ("timeout_fallback", "why"),
    ]
    assert {one["dispatch_id"] for one in told} == {dispatch_id}
    assert books.record(dispatch_id)["injected"] == "timeout_fallback"
    totals: Any = books.store.client.hgetall("fleet:totals")
    assert (totals["a|injected.echo"], totals["a|injected.timeout_fallback"]) == ("1", "1")


def test_the_delay_grows_with_each_failure(store: Store) -> None:
    assert samples(make(store), ["failed"] * 7) == [
        (delay, number, 0)
        for number, delay in enumerate([100, 200, 500, 1000, 2000, 5000, 5000], start=1)
    ]


def test_a_receiver_that_is_down_is_told_of_once_and_when_it_is_back(store: Store) -> None:
    books = make(store)
    samples(books, ["failed"] * 8 + ["unverified", "ack", "ack"])
    told = [entry.fields for entry in books.bus("alert")]
    assert [fields["name"] for fields in told] == ["delivery_down", "delivery_back"]
    assert told[0]["reason"].startswith("crm takes no outcome, 6 tries in a row failed")


def test_three_successes_in_a_row_halve_the_delay(store: Store) -> None:
    kinds = ["failed"] * 3 + ["ack", "ack", "unverified", *["ack"] * 3, *["ack"] * 6]
    assert samples(make(store), kinds)[2:] == [
        *((500, 3, 0), (500, 0, 1), (500, 0, 2), (500, 0, 0)),
        *((500, 0, 1), (500, 0, 2), (250, 0, 0)),
        *((250, 0, 1), (250, 0, 2), (125, 0, 0)),
        *((125, 0, 1), (125, 0, 2), (100, 0, 0)),
    ]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from(["ack", "unverified", "failed", "failed"]), max_size=12))
def test_the_same_throttle_as_for_terminals(store: Store, kinds: list[AttemptKind]) -> None:
    store.client.flushall()
    throttle, wanted = Throttle(), []
    for kind in kinds:
        throttle = throttle.after(kind)
        wanted.append((throttle.delay_ms, throttle.failures, throttle.streak))
    assert samples(make(store), kinds) == wanted


def test_a_receiver_that_fails_holds_all_its_deliveries_and_heals(store: Store) -> None:
    books = make(store)
    first, second = announced(books), announced(books)
    answer = report(books, first, claim(books, first), "failed")
    assert answer == ["again", 100]
    store.client.hset("fleet:target:crm", "next_ms", str(2**50))
    assert not claim(books, second), "what is known of it holds for every dispatch"
    store.client.hset("fleet:target:crm", "next_ms", "0")
    call = claim(books, second)
    assert call
    assert not claim(books, first), "one try at a time until it does well"
    report(books, second, call, "ack")
    assert claim(books, first)


def test_an_outcome_that_is_refused_alone_is_tried_ever_later(store: Store) -> None:
    books = make(store)
    refused, waits = announced(books), []
    for _ in range(4):
        store.client.hset("fleet:target:crm", "next_ms", "0")
        waits.append(report(books, refused, claim(books, refused), "failed")[1])
        store.client.hset("fleet:target:crm", "next_ms", "0")
        other = announced(books)
        report(books, other, claim(books, other), "ack")
    assert waits == [100, 200, 500, 1000]


def test_events_that_share_a_turn_each_have_their_own_delivery(store: Store) -> None:
    agent = {
        "runner": "python",
        "python": "nobody:nothing",
        "deliver": ["crm"],
        "on_busy": "coalesce",
    }
    sessions = {"coalesce_window_s": 0.05, "coalesce_max_s": 0.05}
    tables = {"agents": {"a": agent}, "deliveries": {"crm": RECEIVER}, "sessions": sessions}
    books = Books(store, parse(tables))
    (first,) = books.accept("a", session="s")
    (second,) = books.accept("a", session="s")
    lease = books.held("a")
    claims: list[Any] = []

    def claimed() -> bool:
        books.reclaim()
        claims.append(books.claim(lease))
        return claims[-1] is not None

    wait_until(claimed)
    assert len(claims[-1].joined) == 1
    assert books.complete(claims[-1]) == State.ANNOUNCING
    assert books.ends(second) == []
    report(books, first, claim(books, first), "ack")
    assert (books.state(first), books.state(second)) == ("completed", "announcing")
    report(books, second, claim(books, second), "unverified")
    assert (books.ends(first), books.ends(second)) == ([COMPLETED], [COMPLETED])
    assert books.record(second)["verification"] == "timeout_fallback"


def test_a_person_cannot_cancel_what_is_announced(store: Store) -> None:
    books = make(store)
    dispatch_id = announced(books)
    call = CancelCall(dispatch_id=dispatch_id, reason="no", keep_ended_ms=KEEP_MS, now=0)
    assert store.run(call) == "announcing"
    report(books, dispatch_id, claim(books, dispatch_id), "ack")
    assert books.state(dispatch_id) == "completed"


def test_a_forgotten_dispatch_leaves_nothing(store: Store) -> None:
    books = make(store)
    dispatch_id = announced(books)
    report(books, dispatch_id, claim(books, dispatch_id), "ack")
    assert 0 < store.client.pttl(keys.delivery(dispatch_id)) <= KEEP_MS
    assert 0 < store.client.pttl(keys.outcome(dispatch_id)) <= KEEP_MS
