"""Places on the bus: read, judged against what the stream holds, and found in the log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.api.bus.buffer import EventBuffer, render
from fleet.api.bus.cursor import Cursor, Resync, parse_cursor, verdict
from fleet.api.bus.view import BusFilter
from fleet.ledger.bus import BusEvent, Window

EPOCH = "0123456789abcdef"


def event(millis: int, **fields: str) -> BusEvent:
    return BusEvent(id=f"{millis}-0", epoch=EPOCH, type="alert", time="", fields=fields)


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("5-3", Cursor(None, (5, 3))),
        ("5", Cursor(None, (5, 0))),
        (f"{EPOCH}.5-3", Cursor(EPOCH, (5, 3))),
        (f"{2**64 - 1}-{2**64 - 1}", Cursor(None, (2**64 - 1, 2**64 - 1))),
    ],
)
def test_a_place_is_read(text: str, cursor: Cursor) -> None:
    assert parse_cursor(text) == cursor


@given(st.text(max_size=50))
def test_any_text_is_a_place_or_not(text: str) -> None:
    cursor = parse_cursor(text)
    assert cursor is None or 0 <= min(cursor.place) <= max(cursor.place) < 2**64


def window(first: str | None, last: str, *, trimmed: bool) -> Window:
    return Window(epoch=EPOCH, first=first, last=last, trimmed=trimmed)


WHOLE = window("10-0", "20-0", trimmed=False)
TRIMMED = window("10-0", "20-0", trimmed=True)
EMPTIED = window(None, "20-0", trimmed=True)
NEW = Window(epoch="", first=None, last="0-0", trimmed=False)


@pytest.mark.parametrize(
    ("place", "seen", "reason"),
    [
        ("10-0", TRIMMED, None),
        ("20-0", TRIMMED, None),
        ("9-9", TRIMMED, Resync.TRIMMED),
        ("0-0", TRIMMED, Resync.TRIMMED),
        ("20-1", TRIMMED, Resync.EPOCH_CHANGED),
        ("0-0", WHOLE, None),
        ("9-9", WHOLE, Resync.EPOCH_CHANGED),
        ("20-0", EMPTIED, None),
        ("19-0", EMPTIED, Resync.TRIMMED),
        ("0-0", NEW, None),
        ("1-0", NEW, Resync.EPOCH_CHANGED),
        (f"{EPOCH}.15-0", TRIMMED, None),
        ("another.15-0", TRIMMED, Resync.EPOCH_CHANGED),
        (f"{EPOCH}.15-0", NEW, Resync.EPOCH_CHANGED),
    ],
)
def test_a_place_without_a_hole_behind_it_is_resumed(
    place: str, seen: Window, reason: Resync | None
) -> None:
    cursor = parse_cursor(place)
    assert cursor is not None
    assert verdict(cursor, seen) == reason


def test_the_log_keeps_the_newest_and_knows_how_far_it_reaches() -> None:
    log = EventBuffer(10)
    log.append(render(event(millis)) for millis in range(1, 21))
    assert log.after((0, 0)) == 0
    log.append([render(event(21))])
    assert (log.start, log.end) == (11, 21)
    assert log.after((10, 0)) is None
    assert log.after((11, 0)) == 11
    assert [entry.place[0] for entry in log.slice(11, 2)] == [12, 13]
    assert log.after((99, 0)) == log.end == 21


def test_a_refilled_log_goes_on_counting() -> None:
    log = EventBuffer(10)
    log.append([render(event(1)), render(event(2))])
    log.refill([render(event(7)), render(event(9))], floor=(7, 0))
    assert (log.start, log.end) == (2, 4)
    assert log.after((6, 0)) is None
    assert log.after((8, 0)) == 3


def test_an_entry_cannot_break_the_stream_it_is_sent_in() -> None:
    told = render(event(5, reason="a\n\ndata: forged\r\n\u2028")).sse.decode()
    assert told.startswith(f"id: {EPOCH}.5-0\ndata: ")
    assert told.count("\n") == 3


def test_an_entry_without_an_agent_is_no_agent_s() -> None:
    assert BusFilter().matches(event(1))
    assert not BusFilter(agents=frozenset({"gem"})).matches(event(1))
    assert BusFilter(agents=frozenset({"gem"})).matches(event(1, agent="gem"))
    assert not BusFilter(agents=frozenset({"gem"}), sessions=frozenset({"s"})).matches(
        event(1, agent="gem")
    )
