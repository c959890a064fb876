"""Receivers that fail, hang or wait for a fleet that was away, and those beside them."""

from typing import Any

from fleet.ops.alerts.reading import conditions
from fleet.store import Store, keys
from fleet.store.calls import DeliverDueCall
from tests.fixtures.deliveries import (
    KEEP_MS,
    announced,
    claim,
    due,
    make,
    past_due,
    report,
    rested,
    samples,
)
from tests.fixtures.ledger import Books
from tests.fixtures.processes import wait_until


def test_a_receiver_has_a_bounded_number_of_senders_and_is_in_nobody_s_way(store: Store) -> None:
    books = make(store)
    waiting = [announced(books) for _ in range(9)]
    calls = [claim(books, one) for one in waiting]
    assert [bool(call) for call in calls] == [True] * 8 + [False]
    assert due(books) == [0], "it is not asked for more"
    assert report(books, waiting[0], calls[0], "ack") == ["ended", "completed"]
    assert due(books) == [0, f"{waiting[8]} crm"]
    assert claim(books, waiting[8])


def test_a_receiver_that_hangs_is_tried_by_one_sender_and_rests(store: Store) -> None:
    books = make(store)
    waiting = [announced(books) for _ in range(4)]
    report(books, waiting[0], claim(books, waiting[0]), "unverified")
    known: Any = store.client.hmget("fleet:target:crm", "hangs", "failures")
    assert known == ["1", "0"]
    rested(store)
    second = claim(books, waiting[1])
    assert second
    assert not claim(books, waiting[2]), "one at a time"
    assert due(books) == [0]
    report(books, waiting[1], second, "unverified")
    store.client.hset("fleet:target:crm", "next_ms", str(2**50))
    assert not claim(books, waiting[2]), "it rests"
    rested(store)
    report(books, waiting[2], claim(books, waiting[2]), "ack")
    third, fourth = claim(books, waiting[3]), claim(books, announced(books))
    assert third
    assert fourth


def test_a_receiver_that_always_hangs_is_told_of_once(store: Store) -> None:
    books = make(store)
    samples(books, ["unverified"] * 8)
    (condition,) = (one for one in conditions(store, books.settings) if one.subject == "crm")
    assert condition.name == "delivery_down"
    assert condition.reason.startswith("crm takes no outcome")
    samples(books, ["ack"])
    assert not [one for one in conditions(store, books.settings) if one.subject == "crm"]
    told = [entry.fields for entry in books.bus("alert")]
    assert [fields["name"] for fields in told] == ["delivery_down", "delivery_back"]
    assert told[0]["reason"].startswith(
        "crm takes no outcome, 6 tries in a row were not answered: check deliveries.crm"
    )


def test_attempts_that_fail_together_count_as_one(store: Store) -> None:
    books = make(store)
    waiting = [announced(books) for _ in range(8)]
    calls = [claim(books, one) for one in waiting]
    store.client.hset("fleet:target:crm", "next_ms", str(2**50))
    store.client.hset("fleet:target:crm", "failures", 1)
    for one, call in zip(waiting, calls, strict=True):
        report(books, one, call, "failed")
    assert store.client.hget("fleet:target:crm", "failures") == "1"
    assert not books.bus("alert")


def test_a_lost_sender_gives_its_slot_back(store: Store) -> None:
    books = make(store)
    waiting = [announced(books) for _ in range(9)]
    for one in waiting[:8]:
        assert claim(books, one, lease_ms=1)
    wait_until(lambda: bool(claim(books, waiting[8])))


def test_many_that_wait_for_one_receiver_do_not_delay_another(store: Store) -> None:
    """Beat looks at the receivers that are due, not at what waits for one that is in trouble."""
    books = make(store, receivers=("crm", "log"))
    waiting = [announced(books) for _ in range(6)]
    for one in waiting:
        past_due(books, one)
    report(books, waiting[0], claim(books, waiting[0]), "failed")
    store.client.hset("fleet:target:crm", "next_ms", str(2**50))
    past_due(books, waiting[-1], "log")
    call = DeliverDueCall(limit=2, again_ms=5000, queue_max=500, keep_ended_ms=KEEP_MS, target="")
    found: list[Any] = []
    for _ in range(2):
        found += store.run(call)[1:]
    assert found == [f"{waiting[-1]} log"]


# What a fleet that was away, and what waited for it


def away(books: Books, dispatch_id: str, target: str = "crm") -> None:
    """Its deadline passes while the whole fleet is away."""
    store = books.store
    books.reclaim()
    opened: Any = store.client.hget(keys.delivery(dispatch_id), "|opened_ms")
    store.client.hset(
        keys.delivery(dispatch_id),
        mapping={"|opened_ms": int(opened) - 120_000, f"{target}|deadline_ms": 1},
    )
    store.client.zadd("fleet:deliveries", {f"{dispatch_id} {target}": 1})
    past_due(books, dispatch_id, target)
    books.silence()


def test_a_deadline_that_passed_while_the_fleet_was_away_is_no_end(store: Store) -> None:
    books = make(store)
    dispatch_id = announced(books)
    away(books, dispatch_id)
    call = claim(books, dispatch_id)
    assert call, "a worker that is back before beat tries it"
    assert report(books, dispatch_id, call, "failed")[0] == "again", "there is half a minute"
    books.reclaim()
    assert due(books)[0] == 0
    rested(store)
    again = claim(books, dispatch_id)
    assert report(books, dispatch_id, again, "ack") == ["ended", "completed"]
    assert books.record(dispatch_id)["verification"] == "ack"


def test_what_was_not_tried_since_the_start_is_tried_before_it_is_given_up(store: Store) -> None:
    books = make(store)
    dispatch_id = announced(books)
    away(books, dispatch_id)
    books.reclaim()
    assert due(books) == [0, f"{dispatch_id} crm"]
    books.grace_over()
    store.client.zadd("fleet:deliveries", {f"{dispatch_id} crm": 1})
    assert due(books)[0] == 0, "nobody has tried it"
    call = claim(books, dispatch_id)
    assert call
    assert report(books, dispatch_id, call, "failed") == ["ended", "completed"]
    assert books.record(dispatch_id)["verification"] == "timeout_fallback"


def test_a_deadline_of_later_holds_as_ever(store: Store) -> None:
    books = make(store, deadline_s=0.001)
    books.reclaim()
    books.silence()
    books.reclaim()
    books.grace_over()
    dispatch_id = announced(books)
    wait_until(lambda: due(books)[0] == 1)
    assert books.record(dispatch_id)["verification"] == "timeout_fallback"


def test_what_an_earlier_version_kept_gets_a_line(store: Store) -> None:
    books = make(store)
    dispatch_id = announced(books)
    store.client.delete("fleet:deliveries:crm", "fleet:receivers")
    store.client.zadd("fleet:deliveries", {f"{dispatch_id} crm": 1})
    assert due(books) == [0, f"{dispatch_id} crm"]
