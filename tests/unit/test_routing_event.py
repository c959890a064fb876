"""The envelope: both wire forms, what is filled in, and each refusal in one sentence."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import Event, InvalidEvent
from routing.event import (
    NAME_CHARS_MAX,
    PRIORITY_DEFAULT,
    SENT_BY_FLEET,
    SOURCE_DEFAULT,
    TARGETS_MAX,
    is_reserved,
)

NOW = "2026-11-21T10:00:00.000Z"
#: Stands for a prompt or a key: no refusal may repeat it.
SECRET = "sk-canary-4711"


def parse(raw: object) -> Event:
    return Event.parse(raw, new_id="new-id", now=NOW)


def test_the_shorthand_is_completed() -> None:
    event = parse({"to": "archie", "text": "hello"})
    assert event == Event(
        id="new-id",
        source=SOURCE_DEFAULT,
        type="fleet.message",
        time=NOW,
        to=("archie",),
        text="hello",
        priority=PRIORITY_DEFAULT,
    )


def test_both_wire_forms_are_the_same_event() -> None:
    short = parse({"id": "1", "to": ["a", "b"], "text": "hi", "session": "s", "priority": 9})
    data = {"to": ["a", "b"], "text": "hi", "session": "s", "priority": 9}
    cloud = parse(
        {
            "specversion": "1.0",
            "id": "1",
            "source": SOURCE_DEFAULT,
            "type": "fleet.message",
            "data": data,
        }
    )
    assert short == cloud
    assert short.key == cloud.key


def test_own_fields_may_be_extension_attributes_and_data_a_bare_text() -> None:
    event = parse({"specversion": "1.0", "id": "1", "to": "gem", "data": "hello"})
    assert (event.to, event.text, event.data) == (("gem",), "hello", {})


def test_data_without_a_text_is_itself_the_text() -> None:
    event = parse({"specversion": "1.0", "id": "1", "data": {"to": "gem", "order": 7}})
    assert json.loads(event.text) == {"order": 7}
    assert event.data == {"order": 7}


def test_source_and_id_together_name_an_event() -> None:
    """No choice of characters makes two different pairs one."""
    assert parse({"source": "a", "id": "b", "text": "x"}).key == "a\nb"
    for field in ("id", "source"):
        with pytest.raises(InvalidEvent, match=f"`{field}`"):
            parse({field: "a\nb", "text": "x"})


def test_a_target_named_twice_counts_once_and_keeps_its_place() -> None:
    assert parse({"to": ["b", " a ", "b"], "text": "x"}).to == ("b", "a")


@pytest.mark.parametrize("time", ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00"])
def test_a_senders_wrong_clock_is_its_own_business(time: str) -> None:
    assert parse({"text": "x", "time": time}).time == time


REFUSED: dict[str, tuple[object, str]] = {
    "no object": ([SECRET], "must be a JSON object"),
    "null": (None, "must be a JSON object"),
    "unknown field": ({"text": SECRET, "tto": "a"}, "unknown field 'tto'"),
    "no text": ({"to": "a"}, "`text`"),
    "empty text": ({"text": " \n"}, "`text` is empty"),
    "text of a wrong type": ({"text": 7}, "`text` must be a string"),
    "NUL in the text": ({"text": f"{SECRET}\0"}, "NUL"),
    "NUL deep in the data": (
        {"specversion": "1.0", "data": {"text": SECRET, "a": [{"b": "\0"}]}},
        "NUL",
    ),
    "NUL in a key": ({"text": SECRET, "data": {"\0": 1}}, "NUL"),
    "lone surrogate": ({"text": f"{SECRET}\ud800"}, "lone surrogate"),
    "lone surrogate in the data": ({"text": SECRET, "data": {"a": "\udfff"}}, "lone surrogate"),
    "id of a wrong type": ({"text": SECRET, "id": 7}, "`id`"),
    "empty id": ({"text": SECRET, "id": ""}, "`id`"),
    "id with a newline": ({"text": SECRET, "id": "a\nb"}, "`id`"),
    "id with a NUL": ({"text": SECRET, "id": "a\0"}, "`id`"),
    "id with a surrogate": ({"text": SECRET, "id": "\ud800"}, "`id`"),
    "long id": ({"text": SECRET, "id": "x" * (NAME_CHARS_MAX + 1)}, "`id` is longer"),
    "empty source": ({"text": SECRET, "source": "  "}, "`source`"),
    "empty session": ({"text": SECRET, "session": ""}, "`session`"),
    "session with a newline": ({"text": SECRET, "session": "a\n"}, "`session`"),
    "subject of a wrong type": ({"text": SECRET, "subject": {}}, "`subject`"),
    "type with a control": ({"text": SECRET, "type": "a\x1b[2J"}, "`type`"),
    "time without a zone": ({"text": SECRET, "time": "2026-11-21T10:00:00"}, "`time`"),
    "time in words": ({"text": SECRET, "time": "yesterday"}, "`time`"),
    "time as a number": ({"text": SECRET, "time": 1795255200}, "`time`"),
    "priority above": ({"text": SECRET, "priority": 10}, "`priority`"),
    "priority below": ({"text": SECRET, "priority": -1}, "`priority`"),
    "priority true": ({"text": SECRET, "priority": True}, "`priority`"),
    "priority as a fraction": ({"text": SECRET, "priority": 5.5}, "`priority`"),
    "no targets": ({"text": SECRET, "to": []}, "`to`"),
    "too many targets": (
        {"text": SECRET, "to": [f"a{i}" for i in range(TARGETS_MAX + 1)]},
        "more than 1000 targets",
    ),
    "a target of a wrong type": ({"text": SECRET, "to": ["a", 7]}, "`to`"),
    "an empty target": ({"text": SECRET, "to": ["a", " "]}, "`to`"),
    "targets as an object": ({"text": SECRET, "to": {"a": 1}}, "`to`"),
    "another CloudEvents version": ({"specversion": "0.3", "data": SECRET}, "`specversion`"),
    "base64 data": ({"specversion": "1.0", "data_base64": SECRET}, "`data_base64`"),
    "data as a list": ({"specversion": "1.0", "data": [SECRET]}, "`data`"),
    "data as a list, shorthand": ({"text": SECRET, "data": [1]}, "`data`"),
    "two texts": ({"text": SECRET, "data": {"text": "other"}}, "clashes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_malformed_event_is_refused_in_one_sentence(case: str) -> None:
    raw, words = REFUSED[case]
    with pytest.raises(InvalidEvent) as refusal:
        parse(raw)
    sentence = str(refusal.value)
    assert words in sentence
    assert_one_sentence(sentence)
    assert SECRET not in sentence


def test_data_nested_without_end_is_refused_too() -> None:
    bottomless: dict[str, Any] = {}
    for _ in range(100_000):
        bottomless = {"a": bottomless}
    with pytest.raises(InvalidEvent, match="nested"):
        parse({"text": "x", "data": bottomless})


def assert_one_sentence(sentence: str) -> None:
    assert sentence.isprintable()
    assert sentence.endswith(".")
    assert len(sentence) < 300


names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")),
    min_size=1,
    max_size=30,
).filter(lambda name: bool(name.strip()) and name.isprintable())
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
    lambda text: bool(text.strip()) and "\\u0000" not in text
)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
events = st.fixed_dictionaries(
    {"text": texts},
    optional={
        "id": names,
        "source": names,
        "type": names,
        "subject": names,
        "session": names,
        "time": st.just("2020-02-29T12:00:00+05:30"),
        "priority": st.integers(0, 9),
        "to": names | st.lists(names, min_size=1, max_size=5),
        "data": st.dictionaries(
            texts.filter(lambda key: key not in {"to", "text", "session", "priority"}),
            values,
            max_size=4,
        ),
    },
)


SAID = {"to": ["a", "b"], "text": "hi", "type": "t", "subject": "s", "data": {"x": 1, "y": [2]}}


@pytest.mark.parametrize(
    "change",
    [
        {"to": "a"},
        {"text": "ho"},
        {"type": "u"},
        {"subject": None},
        {"session": "s"},
        {"priority": 9},
        {"data": {"x": 1, "y": [3]}},
    ],
)
def test_other_content_has_another_digest(change: dict[str, Any]) -> None:
    assert parse({**SAID, **change}).content != parse(SAID).content


@pytest.mark.parametrize(
    "change",
    [
        {"time": "2020-01-01T00:00:00Z"},
        {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
        {"hops": 1, "priority": PRIORITY_DEFAULT},
        {"lane": "default"},
        {"id": "2", "source": "other"},
        {"data": {"y": [2], "x": 1}},
    ],
)
def test_what_a_door_or_a_repeated_call_changes_is_no_content(change: dict[str, Any]) -> None:
    assert parse({**SAID, **change}).content == parse(SAID).content


@pytest.mark.parametrize(
    "time", ["2026-11-21t10:00:00z", "2026-11-21T10:00:00z", "2026-11-21t10:00:00.5+01:00"]
)
def test_a_time_may_be_written_in_small_letters(time: str) -> None:
    assert parse({**SAID, "time": time}).time == time.upper()


def test_an_empty_subject_is_none() -> None:
    assert parse({**SAID, "subject": ""}) == parse({**SAID, "subject": None})


def test_the_order_of_data_that_is_the_text_does_not_matter_either() -> None:
    one, other = (
        {"specversion": "1.0", "data": data} for data in ({"x": 1, "y": 2}, {"y": 2, "x": 1})
    )
    assert parse(one).content == parse(other).content
    assert parse(one).text != parse(other).text


def test_the_sender_is_part_of_the_key_and_in_no_wire_form() -> None:
    raw = {"specversion": "1.0", "id": "1", "sent_by": "x", "sentby": "x", "data": {"text": "x"}}
    local = parse(raw)
    token = Event.parse(raw, new_id="", now=NOW, sent_by="token:1")
    assert (local.sent_by, token.sent_by) == ("", "token:1")
    assert len({local.key, token.key}) == 2
    assert local.to_wire() == token.to_wire()
    with pytest.raises(InvalidEvent, match="unknown field 'sent_by'"):
        parse({"text": "x", "sent_by": "x"})
    assert Event.parse(raw, new_id="", now=NOW, sent_by=SENT_BY_FLEET).content == ""


@pytest.mark.parametrize(
    "source",
    [
        *(
            "agent:a",
            "AGENT:a",
            " chain:x",
            "mcp :x",
            "ｕpstream：x",
            "Upstream\N{NO-BREAK SPACE}:x",
        ),
        *("a\N{COMBINING GRAPHEME JOINER}gent:a", "agent\N{VARIATION SELECTOR-16}:a"),
        *("\N{HANGUL FILLER}chain:x", "\N{HALFWIDTH HANGUL FILLER}mcp:x"),
    ],
)
def test_a_source_of_the_fleets_own_is_reserved_in_any_letters(source: str) -> None:
    assert is_reserved(source)


@pytest.mark.parametrize("source", ["fleet", "agents:a", "my/agent:a", "agent", "ci/main"])
def test_any_other_source_is_free(source: str) -> None:
    assert not is_reserved(source)


@given(events)
def test_an_event_survives_the_wire(raw: dict[str, Any]) -> None:
    """The ledger stores, and a worker reads back, the event that came in."""
    event = parse(raw)
    wire = json.loads(json.dumps(event.to_wire()))
    again = Event.parse(wire, new_id="other", now="never")
    assert again == event
    assert again.content == event.content
    assert wire["specversion"] == "1.0"


anything = st.recursive(
    scalars | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
almost = st.dictionaries(
    st.sampled_from(
        ["id", "source", "type", "to", "text", "data", "time", "session", "priority", "specversion"]
    ),
    anything,
)


@given(almost | anything)
def test_whatever_comes_in_is_an_event_or_one_sentence(raw: object) -> None:
    try:
        event = parse(raw)
    except InvalidEvent as refusal:
        assert_one_sentence(str(refusal))
    else:
        json.dumps(event.to_wire(), ensure_ascii=False).encode()
