"""Live text reaches its listeners in order and never twice, and never holds the turn up."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.ledger import Claim
from fleet.store import Store, keys, open_store
from fleet.turn import live_text
from fleet.turn.live_text import BEGINNING, Kind, LiveText, Message, TextPosition
from tests.fixtures.ledger import Books, Twice, contents, settings_for
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a"))


def running(books: Books) -> Claim:
    books.accept()
    return books.claimed(books.held())


def heard(store: Store, claim: Claim, after: TextPosition = BEGINNING) -> Message:
    return live_text.subscribe(store, {claim.dispatch_id: after})[claim.dispatch_id]


def said(store: Store, claim: Claim) -> str:
    return "".join(piece.text for piece in heard(store, claim).pieces)


def test_what_is_said_is_heard_while_the_turn_runs(books: Books) -> None:
    claim = running(books)
    turn = LiveText(books.store, claim)
    turn.publish(1, "It was ")
    wait_until(lambda: said(books.store, claim) == "It was ")
    assert heard(books.store, claim).state == "active"
    turn.publish(1, "night.")
    turn.close()
    last = heard(books.store, claim).pieces[-1]
    assert (str(last.place), last.offset, last.step) == ("1-13", 7, 1)
    assert said(books.store, claim) == "It was night."


def test_many_tokens_are_few_writes(books: Books) -> None:
    claim = running(books)
    turn = LiveText(books.store, claim)
    for number in range(2000):
        turn.publish(1, f"{number} ")
    turn.close()
    wait_until(lambda: said(books.store, claim).endswith(" 1999 "))
    assert len(heard(books.store, claim).pieces) < 100


def test_a_listener_goes_on_behind_any_piece(books: Books) -> None:
    claim = running(books)
    turn = LiveText(books.store, claim)
    for text in ("one ", "two ", "three"):
        turn.publish(1, text)
        wait_until(lambda end=text: said(books.store, claim).endswith(end))  # type: ignore[misc]
    turn.close()
    pieces = heard(books.store, claim).pieces
    assert len(pieces) == 3
    for number, piece in enumerate(pieces):
        assert heard(books.store, claim, piece.place).pieces == pieces[number + 1 :]


def test_each_step_begins_its_text_and_a_fallback_begins_it_anew(books: Books) -> None:
    claim = running(books)
    turn = LiveText(books.store, claim)
    turn.reset(1)
    turn.publish(1, "Let me look. ")
    turn.publish(2, "Half an ans")
    turn.reset(2)
    turn.reset(2)
    turn.publish(2, "It is blue.")
    turn.close()
    pieces = heard(books.store, claim).pieces
    assert [(piece.kind, piece.step, piece.offset, piece.text) for piece in pieces] == [
        (Kind.TEXT, 1, 0, "Let me look. "),
        (Kind.TEXT, 2, 0, "Half an ans"),
        (Kind.FALLBACK, 2, 0, ""),
        (Kind.TEXT, 2, 0, "It is blue."),
    ]
    places = [BEGINNING, *(piece.place for piece in pieces)]
    assert all(piece.follows(place) for piece, place in zip(pieces, places, strict=False))


def test_a_later_attempt_takes_back_what_the_earlier_one_said(books: Books) -> None:
    lease = books.held()
    books.accept()
    first = LiveText(books.store, books.claimed(lease))
    first.publish(1, "It was ni")
    first.close()
    claim = books.claimed(lease)
    second = LiveText(books.store, claim)
    second.publish(1, "It was day.")
    first.publish(1, "ght.")
    second.close()
    pieces = heard(books.store, claim).pieces
    assert [(str(piece.place), piece.kind, piece.text) for piece in pieces] == [
        ("1-9", Kind.TEXT, "It was ni"),
        ("2-1", Kind.RETRY, ""),
        ("2-12", Kind.TEXT, "It was day."),
    ]
    assert pieces[1].follows(pieces[0].place)


def test_an_old_attempt_is_not_heard(books: Books) -> None:
    lease = books.held()
    books.accept()
    old = LiveText(books.store, books.claimed(lease))
    claim = books.claimed(lease)
    old.publish(1, "too late")
    old.close()
    assert not heard(books.store, claim).pieces
    new = LiveText(books.store, claim)
    books.complete(claim)
    new.publish(1, "after the end")
    new.close()
    assert not heard(books.store, claim).pieces


def test_a_repeated_call_says_nothing_twice(store: Store) -> None:
    books = Books(Twice(store.client, 1000, wakes=True), settings_for("a"))
    claim = running(books)
    turn = LiveText(books.store, claim)
    for text in ("once ", "only"):
        turn.publish(1, text)
    turn.close()
    assert said(books.store, claim) == "once only"


def test_it_is_kept_for_minutes_and_less_after_the_end(books: Books) -> None:
    claim = running(books)
    turn = LiveText(books.store, claim)
    turn.publish(1, "hello")
    turn.close()
    key = keys.speech(claim.dispatch_id)
    assert 60_000 < int(books.store.client.pttl(key)) <= live_text.KEEP_MS
    books.complete(claim)
    assert 0 < int(books.store.client.pttl(key)) <= 60_000


def test_nothing_that_is_said_is_anywhere_else(books: Books) -> None:
    claim = running(books)
    turn = LiveText(books.store, claim)
    turn.publish(1, "xyzzy")
    turn.close()
    held = [key for key, value in contents(books.store).items() if "xyzzy" in str(value)]
    assert held == [keys.speech(claim.dispatch_id)]


@pytest.fixture
def own(tmp_path: Path, _no_process_is_left: None) -> Iterator[Valkey]:
    server = Valkey(tmp_path).start()
    yield server
    server.resume()
    server.kill()


def test_while_the_store_hangs_the_turn_speaks_on_and_a_listener_sees_the_gap(own: Valkey) -> None:
    opened = open_store(own.url)
    books = Books(opened, settings_for("a"))
    claim = running(books)
    turn = LiveText(opened, claim)
    turn.publish(1, "before ")
    wait_until(lambda: said(opened, claim) == "before ")
    own.pause()
    piece = "x" * 1000
    for _ in range(live_text.WAITING_CHARS_MAX // 1000 + 100):
        turn.publish(1, piece)
    own.resume()
    wait_until(lambda: len(said(opened, claim)) > live_text.WAITING_CHARS_MAX - 2000)
    turn.publish(1, "after")
    turn.close()
    wait_until(lambda: said(opened, claim).endswith("after"))
    pieces = heard(opened, claim).pieces
    places = [BEGINNING, *(piece.place for piece in pieces)]
    follows = [piece.follows(place) for piece, place in zip(pieces, places, strict=False)]
    assert follows.count(False) == 1
    assert not follows[-1]
    opened.close()


def test_one_attempt_cannot_fill_the_store(books: Books) -> None:
    claim = running(books)
    turn = LiveText(books.store, claim)
    for kept in [*range(100_000, 1_000_001, 100_000), 1_000_000, 1_000_000]:
        turn.publish(1, "x" * 100_000)
        wait_until(lambda end=kept: len(said(books.store, claim)) == end)  # type: ignore[misc]
    turn.close()
    assert len(said(books.store, claim)) == 1_000_000


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-b", "1-2-3", "1-1234567890123", "٣-٣"])
def test_what_is_no_place_is_none(text: str) -> None:
    assert live_text.parse_position(text) is None
