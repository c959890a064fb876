"""Nothing stays for ever: what is too old or too much is forgotten, and counted out."""

import pytest

from fleet.config.settings import parse
from fleet.ledger import bus, maintenance, operations, views
from fleet.ledger.operations import NotPossible
from fleet.store import Store, keys
from tests.fixtures.ledger import FOR_GOOD, Books, settings_for

KEEP = {"completed_s": 100, "dead_s": 1000, "max": 3}


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a", "b", fleet={"retention": KEEP}))


def ended(books: Books, how: str = "completed", to: str = "a") -> str:
    """The id of a dispatch that ended just now."""
    lease = books.held(to)
    (dispatch_id,) = books.accept(to)
    claim = books.claimed(lease)
    assert (books.complete(claim) if how == "completed" else books.fail(claim, FOR_GOOD)) == how
    lease.release()
    return dispatch_id


def age(books: Books, dispatch_id: str, seconds: int) -> None:
    """As if it had ended that long ago; its keys' times to live pass as well."""
    client = books.store.client
    for name in ("fleet:ended", keys.DEAD):
        client.zadd(name, {dispatch_id: -1000 * seconds}, xx=True, incr=True)
    for key in (keys.dispatch, keys.journal, keys.outcome):
        left = client.pttl(key(dispatch_id))
        if left > 0:
            client.pexpire(key(dispatch_id), max(1, left - 1000 * seconds))


def counted(books: Books) -> dict[str, int]:
    states: dict[str, int] = views.counts(books.store, ["a"])["a"]["states"]
    return states


def test_an_ended_one_stays_as_long_as_it_should(books: Books) -> None:
    dispatch_id = ended(books)
    age(books, dispatch_id, 99)
    assert books.sweep()["ended"] == 0
    assert counted(books) == {"completed": 1}


def test_an_old_one_is_forgotten_and_counted_out(books: Books) -> None:
    dispatch_id = ended(books)
    age(books, dispatch_id, 101)
    assert books.sweep()["ended"] == 1
    assert books.record(dispatch_id) == {}
    assert counted(books) == {}
    assert views.find(books.store).dispatches == []


def test_a_dead_letter_stays_longer_and_says_when_it_goes(books: Books) -> None:
    dispatch_id = ended(books, "dead")
    age(books, dispatch_id, 101)
    assert books.sweep()["dead"] == 0
    age(books, dispatch_id, 900)
    assert books.sweep()["dead"] == 1
    assert books.ends(dispatch_id) == ["dispatch_dead", "dispatch_dropped"]
    assert counted(books) == {}


def test_too_many_push_out_the_oldest(books: Books) -> None:
    ids = [ended(books) for _ in range(5)]
    assert books.sweep()["ended"] == 2
    assert [bool(books.record(dispatch_id)) for dispatch_id in ids] == [False] * 2 + [True] * 3
    assert len(list(books.store.client.scan_iter("fleet:payload:*"))) == 3
    assert len(list(books.store.client.scan_iter("fleet:event:*"))) == 5


def test_a_tick_forgets_all_that_is_too_much(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the store would grow for ever, where more end between two ticks than one step forgets."""
    monkeypatch.setattr(maintenance, "BATCH", 2)
    for to in ("completed", "dead"):
        for _ in range(8):
            ended(books, to)
    assert books.sweep() == {"ended": 5, "dead": 5, "trimmed": 0}
    assert counted(books) == {"completed": 3, "dead": 3}


def test_what_has_not_ended_is_never_forgotten(books: Books) -> None:
    (waits,) = books.accept("a")
    for _ in range(4):
        ended(books, to="b")
    books.sweep()
    assert books.state(waits) == "queued"


def test_a_payload_stays_as_long_as_any_dispatch_of_its_event(books: Books) -> None:
    """The dead one of a group can be replayed, though the other one completed later."""
    one, two = books.held("a"), books.held("b")
    dead, completed = books.accept(["a", "b"])
    books.fail(books.claimed(one), FOR_GOOD)
    books.complete(books.claimed(two))
    age(books, completed, 101)
    books.sweep()
    (payload,) = books.store.client.scan_iter("fleet:payload:*")
    assert books.store.client.ttl(payload) > 900
    assert operations.replay(books.ledger, books.settings, dead) == "queued"


def test_what_is_forgotten_cannot_be_replayed(books: Books) -> None:
    dispatch_id = ended(books, "dead")
    (payload,) = books.store.client.scan_iter("fleet:payload:*")
    books.store.client.delete(payload)
    with pytest.raises(NotPossible, match="no longer kept"):
        operations.replay(books.ledger, books.settings, dispatch_id)


def test_an_event_that_comes_again_after_its_time_is_a_new_one(books: Books) -> None:
    """Also where no sweep has been yet and the old record is still there."""
    lease = books.held()
    (dispatch_id,) = books.accept(id="1")
    books.complete(books.claimed(lease))
    (event,) = books.store.client.scan_iter("fleet:event:*")
    books.store.client.delete(event)
    assert books.accept(id="1") == [dispatch_id]
    assert counted(books) == {"queued": 1}
    assert books.store.client.ttl(keys.dispatch(dispatch_id)) == -1
    assert books.claimed(lease).attempt == 1


def test_purge_forgets_every_dead_letter(books: Books) -> None:
    ids = [ended(books, "dead") for _ in range(2)]
    kept = ended(books)
    assert operations.purge(books.ledger, books.settings) == 2
    assert [books.state(dispatch_id) for dispatch_id in (*ids, kept)] == ["", "", "completed"]


def test_purge_goes_on_past_those_that_somebody_is_still_to_be_told_of(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = {"runner": "python", "python": "nobody:nothing"}
    receiver = {"webhook": "https://crm.example/", "secret": "sixteen bytes or more"}
    tables = {"agents": {"a": {**agent, "deliver": ["crm"]}, "b": agent}}
    books = Books(store, parse({**tables, "deliveries": {"crm": receiver}}))
    monkeypatch.setattr(maintenance, "BATCH", 1)
    untold, told = [ended(books, "dead") for _ in range(2)], ended(books, "dead", "b")
    assert operations.purge(books.ledger, books.settings) == 1
    assert [books.state(one) for one in (*untold, told)] == ["dead", "dead", ""]


def test_a_client_that_has_read_all_has_missed_nothing_however_old_it_is(store: Store) -> None:
    books = Books(store, settings_for("a"))
    for n in range(300):
        books.store.client.xadd(keys.BUS, {"type": "alert"}, id=f"1000-{n}")
    assert books.sweep()["trimmed"] == 299
    newest = bus.window(store).last
    assert newest == "1000-299"
    assert bus.window(store).first == newest


def test_the_bus_is_trimmed_by_age(store: Store) -> None:
    books = Books(store, settings_for("a"))
    for n in range(300):
        books.store.client.xadd(keys.BUS, {"type": "alert"}, id=f"1000-{n}")
    books.accept("a")
    assert books.sweep()["trimmed"] >= 200
    assert books.bus("dispatch_queued")
