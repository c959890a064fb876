"""The beginning of an id stands for it, as long as it is the beginning of one only."""

import pytest

from fleet.intake.intake import Sender
from fleet.ledger import ids
from fleet.ledger.ids import Ambiguous, find_dispatch, find_event
from fleet.ledger.operations import Unknown
from fleet.store import Store, keys
from tests.fixtures.ledger import Books, settings_for


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a", "b", fleet={"retention": {"max": 1}}))


def alike(books: Books, to: str = "a", count: int = 2) -> tuple[str, list[str]]:
    """Ids with the same first six characters, as if chance had made them."""
    made = ["abcdef" + books.accept(to)[0][6:] for _ in range(count)]
    for one in made:
        books.store.client.zadd(keys.IDS, {one: 0})
        books.store.client.hset(keys.dispatch(one), mapping={"agent": to, "state": "queued"})
    return "abcdef", made


def test_six_characters_are_enough(books: Books) -> None:
    (one,), _ = books.accept(), books.accept()
    for length in (6, 8, 35, 36):
        assert find_dispatch(books.store, one[:length]) == one


def test_fewer_are_not(books: Books) -> None:
    (one,) = books.accept()
    with pytest.raises(Unknown, match="Give 6 or more"):
        find_dispatch(books.store, one[:5])
    with pytest.raises(Unknown, match="There is no dispatch 'nothing'"):
        find_dispatch(books.store, "nothing")


def test_a_beginning_of_several_names_them(books: Books) -> None:
    prefix, made = alike(books)
    with pytest.raises(Ambiguous) as refused:
        find_dispatch(books.store, prefix)
    assert all(f"{one} (a, queued)" in str(refused.value) for one in made)


def test_the_candidates_are_bounded(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "FOUND_MAX", 14)
    prefix, _ = alike(books, count=15)
    with pytest.raises(Ambiguous, match="and more") as refused:
        find_dispatch(books.store, prefix)
    assert str(refused.value).count("(a, queued)") == ids.NAMED_MAX


def test_what_a_caller_may_not_see_is_no_candidate(books: Books) -> None:
    prefix, _ = alike(books, "a")
    _, (mine, *_) = alike(books, "b", 1)
    assert find_dispatch(books.store, prefix, lambda agent, _: agent == "b") == mine
    with pytest.raises(Unknown):
        find_dispatch(books.store, prefix, lambda _agent, _sender: False)


def test_an_event_is_found_by_its_beginning_whoever_sent_it(books: Books) -> None:
    sender = Sender(sent_by="token:1")
    books.intake.accept({"id": "order-17", "source": "shop", "to": "a", "text": "x"}, sender)
    found = find_event(books.store, "order-")
    assert found == ids.FoundEvent("order-17", "shop", "token:1")
    assert find_event(books.store, "order-", lambda _agent, _sender: False) is None
    assert find_event(books.store, "order-", source="fleet") is None
    assert find_event(books.store, "order-", sent_by="token:1", source="shop") == found
    books.accept(id="order-18")
    with pytest.raises(Ambiguous, match=r"order-17 \(shop\), order-18 \(fleet\)"):
        find_event(books.store, "order-")
    books.accept(id="order-180")
    whole = find_event(books.store, "order-18")
    assert whole is not None
    assert whole.event_id == "order-18"


def test_what_is_forgotten_is_found_no_more(books: Books) -> None:
    lease = books.held()
    made = [books.accept(id=f"event-{n}")[0] for n in range(3)]
    for _ in made:
        books.complete(books.claimed(lease))
    books.sweep()
    client = books.store.client
    (kept,) = {*made} & {*client.zrange(keys.INDEX, 0, -1)}
    assert client.zrange(keys.IDS, 0, -1) == [kept]
    for n, one in enumerate(made):
        found = find_event(books.store, f"event-{n}")
        assert (found is None) is (one != kept)
        if one != kept:
            with pytest.raises(Unknown):
                find_dispatch(books.store, one[:8])


def test_dispatches_of_an_earlier_version_are_found_after_a_sweep(books: Books) -> None:
    (one,) = books.accept()
    books.store.client.delete(keys.IDS)
    books.sweep()
    assert find_dispatch(books.store, one[:6]) == one
