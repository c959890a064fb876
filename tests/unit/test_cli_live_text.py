"""The view of a turn while it speaks."""

import pytest

from fleet.cli.live_text import SHOWN_CHARS, LiveTexts, Transcript
from fleet.cli.waiting import Watched
from fleet.store import Store
from fleet.turn.live_text import Chunk, Kind, LiveText, TextPosition
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.processes import wait_until


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a"))


def test_it_grows_while_the_turn_speaks_and_forgets_what_is_void(books: Books) -> None:
    lease = books.held()
    (dispatch_id,) = books.accept()
    first = LiveText(books.store, books.claimed(lease))
    with LiveTexts(lambda: books.store, [Watched(dispatch_id, "a")]) as live_texts:
        assert live_texts.tail(dispatch_id) == ""
        first.publish(1, "It was night.")
        wait_until(lambda: live_texts.tail(dispatch_id) == "It was night.")
        second = LiveText(books.store, books.claimed(lease))
        second.publish(1, "It was ")
        second.publish(1, "day.")
        wait_until(lambda: live_texts.tail(dispatch_id) == "It was day.")
    first.close()
    second.close()


def test_only_the_end_of_a_long_text_is_kept() -> None:
    text = "".join(map(str, range(1000)))
    piece = Chunk(
        place=TextPosition(1, len(text)), before=0, kind=Kind.TEXT, step=1, offset=0, text=text
    )
    transcript = Transcript()
    assert transcript.tail == ""
    transcript.take([piece])
    assert transcript.tail == text[-SHOWN_CHARS:]
    assert transcript.place == piece.place
