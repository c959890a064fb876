"""The limits of intake: the rest is refused, or pushes out what is needed least."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis.exceptions import ResponseError

from fleet.config.settings import Settings, parse
from fleet.errors import Refused
from fleet.intake.intake import FLEET, LOCAL, UPSTREAM, Sender
from fleet.ledger import Accepted
from fleet.locks import SessionLock
from fleet.ops.alerts.reading import conditions
from fleet.store import Store
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.processes import wait_until

ONE = Sender(sent_by="token:1")
AGENT = {"runner": "python", "python": "nobody:nothing"}


def capped(**caps: float) -> Settings:
    return parse({"agents": {"a": AGENT, "b": AGENT}, "caps": caps})


@contextmanager
def memory_used(store: Store, share: float) -> Iterator[None]:
    """Let the server have so little memory that it uses this share of it."""
    used = int(store.client.info("memory")["used_memory"])
    store.client.config_set("maxmemory", str(int(used / share)))
    try:
        yield
    finally:
        store.client.config_set("maxmemory", "0")


def refuses(books: Books) -> bool:
    """Try to send; true when the memory is too full for it."""
    try:
        books.accept("a")
    except Refused as refusal:
        return "memory is nearly full" in str(refusal)
    return False


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a", "b", overflow="drop_oldest", max_pending=3))


def dropped(books: Books) -> list[tuple[str, str]]:
    """(dispatch, sender) of each that was announced as dropped."""
    return [
        (event.fields["dispatch_id"], event.fields["sender"])
        for event in books.bus()
        if event.type == "delivery_dropped"
    ]


def test_the_oldest_makes_room_for_the_newest(books: Books) -> None:
    first, second, *_ = [books.accept("a", source="s")[0] for _ in range(3)]
    (fourth,) = books.accept("a", source="t")
    (fifth,) = books.accept("a", source="t")
    assert [books.state(one) for one in (first, second, fourth, fifth)] == [
        *("dropped", "dropped", "queued", "queued")
    ]
    assert dropped(books) == [(first, "s"), (second, "s")]
    assert books.ends(first) == ["dispatch_dropped"]


def test_the_least_urgent_goes_first_and_none_that_is_more_urgent(books: Books) -> None:
    urgent, low, *_ = [books.accept("a", priority=level)[0] for level in (9, 1, 5)]
    books.accept("a", priority=5)
    assert books.state(low) == "dropped"
    with pytest.raises(Refused, match="max_pending"):
        books.accept("a", priority=0)
    assert books.state(urgent) == "queued"


def test_all_or_nothing_where_one_of_two_agents_is_full_of_urgent_work(books: Books) -> None:
    kept = [books.accept("a", priority=3)[0] for _ in range(3)]
    for _ in range(3):
        books.accept("b", priority=9)
    with pytest.raises(Refused):
        books.accept(["a", "b"], priority=5)
    assert [books.state(one) for one in kept] == ["queued"] * 3
    assert dropped(books) == []


def test_a_running_one_is_never_dropped(books: Books) -> None:
    lease = books.held("a")
    (running,) = books.accept("a")
    claim = books.claimed(lease)
    for _ in range(5):
        books.accept("a")
    assert books.state(running) == "active"
    assert books.complete(claim) == "completed"


def test_the_next_of_a_session_moves_up_when_its_first_is_dropped(books: Books) -> None:
    first, second, third = [books.accept("a", session="s")[0] for _ in range(3)]
    (fourth,) = books.accept("a")
    assert [books.state(one) for one in (first, second, third, fourth)] == [
        *("dropped", "queued", "queued", "queued")
    ]
    assert books.claimed(books.held("a")).dispatch_id == second


def test_the_fleet_has_a_ceiling(store: Store) -> None:
    books = Books(store, capped(max_waiting=3))
    books.accept(["a", "b"])
    books.accept("a", id="known", source="s")
    with pytest.raises(Refused, match=r"caps\.max_waiting"):
        books.accept("b")
    assert books.intake.accept({"to": "a", "text": "hello", "id": "known", "source": "s"}).duplicate
    claim = books.claimed(books.held("a"))
    assert books.accept("b")
    assert books.complete(claim) == "completed"


@pytest.mark.parametrize("sender", [LOCAL, ONE, UPSTREAM])
def test_a_sender_sends_so_much_in_a_minute(sender: Sender, store: Store) -> None:
    """By whatever names: it chooses its source itself."""
    books = Books(store, capped(sender_per_minute=2))

    def send(source: str, sender: Sender) -> Accepted:
        return books.intake.accept({"to": "a", "text": "hello", "source": source}, sender)

    for source in ("s", "t"):
        send(source, sender)
    with pytest.raises(Refused, match=r"caps\.sender_per_minute") as refusal:
        send("u", sender)
    assert 0 < refusal.value.retry_after_s <= 60
    send("s", Sender(sent_by="token:2"))
    # Each of the fleet's agents is a sender of its own.
    for source in ("agent:a", "agent:b"):
        for _ in range(2):
            send(source, FLEET)
        with pytest.raises(Refused, match=r"caps\.sender_per_minute"):
            send(source, FLEET)


def test_a_store_that_is_nearly_full_takes_no_event_and_ends_what_it_has(store: Store) -> None:
    books = Books(store, capped(store_memory=0.5))
    lease = books.held("a")
    books.accept("a")
    claim = books.claimed(lease)
    with memory_used(store, 2 / 3):
        wait_until(lambda: refuses(books))
        assert [one.name for one in conditions(store, books.settings)].count("memory") == 1
        assert books.complete(claim) == "completed"
    wait_until(lambda: not refuses(books))


def test_a_store_that_is_full_ends_what_it_has_and_makes_room(store: Store) -> None:
    """Nor is a lease lost, though the server itself refuses whatever needs memory."""
    books = Books(store, settings_for("a", fleet={"retention": {"max": 1}}))
    lease = books.held("a")
    for _ in range(3):
        books.accept("a")
    assert books.complete(books.claimed(lease)) == "completed"
    claim = books.claimed(lease)
    with memory_used(store, 2), SessionLock(store, "s", "turn"):
        with pytest.raises(ResponseError, match="maxmemory"):
            store.client.set("something", "else")
        wait_until(lambda: refuses(books))
        assert lease.renew()
        assert books.ledger.step(claim, "1.ask", '{"name": "ask"}') == ""
        assert books.complete(claim) == "completed"
        assert books.complete(books.claimed(lease)) == "completed"
        assert books.reclaim()["expired"] == 0
        assert books.sweep()["ended"] == 2
        lease.release()
