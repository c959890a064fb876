"""JSON from others: what two readers could read differently is refused in a few words."""

import json
from typing import Any

import pytest

from fleet.formats.strict_json import DuplicateKey, parse, parse_marked
from tasks.runners.response_body import answer_of

TWICE = [
    '{"to": "a", "to": "b"}',
    '{"data": [1, {"x": 1, "x": 1}]}',
    '{"x": {}, "y": 1, "\\u0078": 2}',
]


@pytest.mark.parametrize("text", TWICE)
def test_a_key_that_stands_twice_is_named(text: str) -> None:
    with pytest.raises(
        DuplicateKey, match=r"^the key '(to|x)' stands twice in an object: keep one$"
    ):
        parse(text.encode())


def test_a_key_in_an_error_is_short_and_printable() -> None:
    key = json.dumps("\n\u202e" + "k" * 100_000)
    with pytest.raises(DuplicateKey) as refused:
        parse(f"{{{key}: 1, {key}: 2}}")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "1e999", "", "{", "[" * 100_000])
@pytest.mark.parametrize("read", [parse, parse_marked])
def test_what_is_no_json_is_a_value_error(text: str, read: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read(text)


def test_one_ambiguous_object_does_not_hide_the_others() -> None:
    good, bad = parse_marked('[{"id": "1", "x": [1.5]}, {"id": "2", "x": 1, "x": 2}]')
    assert good == {"id": "1", "x": [1.5]}
    assert bad["id"] == "2"
    with pytest.raises(TypeError):
        json.dumps(bad)


@pytest.mark.parametrize("text", ['{"text": "a", "text": "b"}', '{"text": "a", "x": NaN}'])
def test_a_service_s_answer_is_read_as_strictly(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        answer_of(text, "application/json")
    assert answer_of(text, "text/plain") == text
