"""An event from options and files; options win."""

from pathlib import Path
from typing import Any

import pytest

from fleet.cli.event_input import read_event
from fleet.errors import Refused
from routing import Event, InvalidEvent
from routing.event import EVENT_BYTES_MAX

CLOUD = """{"specversion": "1.0", "id": "a", "source": "s", "type": "t",
    "data": {"text": "x", %s}%s}"""


def written(folder: Path, text: str) -> str:
    path = folder / "event.json"
    path.write_text(text)
    return str(path)


def parsed(raw: Any) -> Event:
    return Event.parse(raw, new_id="new", now="2026-01-01T00:00:00Z")


def test_a_text_with_options_is_the_shorthand() -> None:
    raw = read_event("hello", None, {"to": ["gem"], "session": None, "id": "k"})
    assert raw == {"text": "hello", "to": ["gem"], "id": "k"}


@pytest.mark.parametrize(
    "text",
    [
        '{"text": "x", "to": "archie", "id": "a", "priority": 1}',
        CLOUD % ('"more": 2, "to": "archie", "priority": 1', ""),
        CLOUD % ('"more": 2', ', "to": "archie", "priority": 1'),
    ],
    ids=["shorthand", "in data", "as extension"],
)
def test_an_option_wins_over_the_file_in_every_form(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    untouched = parsed(read_event(None, file, {"to": None, "priority": None}))
    assert (untouched.to, untouched.priority, untouched.id) == (("archie",), 1, "a")
    changed = parsed(read_event(None, file, {"to": ["gem"], "priority": 9, "id": "k"}))
    assert (changed.to, changed.priority, changed.id) == (("gem",), 9, "k")
    assert (changed.text, changed.data) == (untouched.text, untouched.data)


@pytest.mark.parametrize(
    "text", ["", "{", "nul", '{"a": 1, "a": 1}', '{"a": NaN}', '{"a": Infinity}', "[" * 10**6]
)
def test_what_is_no_json_is_an_invalid_event(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidEvent, match="not valid JSON"):
        read_event(None, written(tmp_path, text), {})


def test_a_file_may_be_as_large_as_an_event_and_no_larger(tmp_path: Path) -> None:
    room = EVENT_BYTES_MAX - len('{"text":""}')
    assert read_event(None, written(tmp_path, '{"text":"' + "x" * room + '"}'), {})
    with pytest.raises(Refused, match="larger than"):
        read_event(None, written(tmp_path, '{"text":"' + "x" * (room + 1) + '"}'), {})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"nothing\.json cannot be read"):
        read_event(None, str(tmp_path / "nothing.json"), {})


def test_in_the_program_of_a_turn_it_is_a_hop_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURN_HOPS", "3")
    assert parsed(read_event("hello", None, {})).hops == 4
    file = written(tmp_path, CLOUD % ('"hops": "of the data"', ', "hops": 0'))
    event = parsed(read_event(None, file, {}))
    assert (event.hops, event.data) == (4, {"hops": "of the data"})


@pytest.mark.parametrize("told", ["", "many", "-1", "²"])
def test_hops_that_are_none_are_refused(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURN_HOPS", told)
    with pytest.raises(InvalidEvent, match="`hops`"):
        parsed(read_event("hello", None, {}))


def test_what_is_no_object_is_left_to_the_parser(tmp_path: Path) -> None:
    assert read_event(None, written(tmp_path, "[1]"), {"to": ["gem"]}) == [1]
