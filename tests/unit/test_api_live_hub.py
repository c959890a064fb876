"""A client may leave anywhere and come back: it shows the text once, or is told to forget it."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.api.live.hub import Channel
from fleet.api.live.routes import LiveTextListener
from fleet.turn.live_text import CHUNK, Chunk, Kind, TextPosition
from tests.fixtures.listening import Listening, Screen


def spoken(attempts: Sequence[Sequence[str | None]]) -> list[Chunk]:
    """The pieces of some attempts at one step; None is a model that gave up."""
    chunks: list[Chunk] = []
    for attempt, texts in enumerate(attempts, start=1):
        place, offset = TextPosition(attempt, 0), 0
        for text in [*([""] if attempt > 1 else []), *texts]:
            kind = Kind.TEXT if text else Kind.FALLBACK if text is None else Kind.RETRY
            offset = offset if text else 0
            behind = TextPosition(attempt, place.characters + (len(text) if text else 1))
            chunks.append(
                Chunk(
                    place=behind,
                    before=place.characters,
                    kind=kind,
                    step=1,
                    offset=offset,
                    text=text or "",
                )
            )
            place, offset = behind, offset + len(text or "")
    return chunks


def truth(chunks: Sequence[Chunk]) -> str:
    text = ""
    for chunk in chunks:
        text = text + chunk.text if chunk.kind is Kind.TEXT else ""
    return text


def channel_of(chunks: list[Chunk]) -> Channel:
    channel = Channel("d")
    for start in range(0, len(chunks) + 1, CHUNK):
        channel.append(chunks[start : start + CHUNK], None)
    return channel


def receive(channel: Channel, cursor: str | None, screen: Screen) -> tuple[str, list[str]]:
    """Everything there is; the cursor behind it and the names of the events."""
    listener = LiveTextListener(channel, cursor)
    body = b"".join(iter(listener.next_batch, b""))
    listening = Listening(body.decode().split("\n"), screen)
    names = [name for name, _ in listening.rest()]
    return listening.cursor or cursor or "", names


texts = st.lists(st.none() | st.text(min_size=1, max_size=5), max_size=6)


@given(st.lists(texts, min_size=1, max_size=3), st.integers(0, 20))
def test_who_leaves_anywhere_and_comes_back_shows_the_text_once(
    attempts: list[list[str | None]], seen: int
) -> None:
    chunks = spoken(attempts)
    screen = Screen()
    cursor, names = receive(channel_of(chunks[:seen]), None, screen)
    _, more = receive(channel_of(chunks), cursor or None, screen)
    assert screen.text == truth(chunks)
    assert "resync" not in names + more
    assert screen.gaps == 0


@given(st.lists(texts, min_size=1, max_size=3), st.integers(0, 20), st.integers(1, 20))
def test_who_comes_too_late_is_told_to_forget(
    attempts: list[list[str | None]], seen: int, trimmed: int
) -> None:
    chunks = spoken(attempts)
    screen = Screen()
    cursor, _ = receive(channel_of(chunks[:seen]), None, screen)
    kept = chunks[trimmed:]
    _, names = receive(channel_of(kept), cursor or None, screen)
    if trimmed > seen and kept and kept[0].before:
        assert names[0] == "resync"
    # Nothing is doubled, and nothing void is left.
    assert truth(chunks).endswith(screen.text) or not kept


@pytest.mark.parametrize("cursor", ["nonsense", "1-3", "7-1", "1-999"])
def test_a_cursor_of_nowhere_starts_anew(cursor: str) -> None:
    screen = Screen()
    screen.show("token", {"step": 1, "offset": 0, "text": "of another life"})
    _, names = receive(channel_of(spoken([["one ", "two ", "three"]])), cursor, screen)
    assert names == ["resync", "token", "token", "token"]
    assert screen.text == "one two three"


def test_a_place_is_looked_for_only_when_all_that_was_kept_is_there() -> None:
    chunks = spoken([[f"{number} " for number in range(CHUNK + 3)]])
    channel = Channel("d")
    listener = LiveTextListener(channel, str(chunks[CHUNK].place))
    assert listener.next_batch() == b""
    channel.append(chunks[:CHUNK], None)
    assert listener.next_batch() == b""
    channel.append(chunks[CHUNK:], None)
    events = [
        json.loads(line[6:])
        for line in listener.next_batch().decode().split("\n")
        if "data" in line
    ]
    assert [event["text"] for event in events] == [f"{CHUNK + 1} ", f"{CHUNK + 2} "]


def test_an_end_comes_behind_everything_that_was_said() -> None:
    channel = channel_of(spoken([["one ", "two"]]))
    listener = LiveTextListener(channel, None)
    outcome: dict[str, Any] = {"state": "completed"}
    channel.append([], outcome)
    assert not listener.finished
    assert listener.next_batch()
    assert listener.finished
