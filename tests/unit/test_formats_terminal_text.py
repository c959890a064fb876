"""Text of programs and tools, as a person and a terminal may have it."""

import pytest

from fleet.formats.terminal_text import sanitize, sanitize_value, strip_escapes


@pytest.mark.parametrize(
    ("printed", "read"),
    [
        ("hello\n", "hello"),
        ("\x1b[1;31mred\x1b[0m and \x1b]0;title\x07plain", "red and plain"),
        ("\x1b]8;;https://x.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("10%\r50%\rdone\nnext\r\n", "done\nnext"),
        ("a\x00b\x08c\x7f\td", "abc\td"),
        ("\x1b[?25l\x1b[2J\x1b[Htop\x1b[?25h", "top"),
        ("\x9b31mred\x9b0m \x9d0;title\x9cplain", "red plain"),
        ("ünï ✓", "ünï ✓"),
        ("", ""),
    ],
)
def test_terminal_codes_are_no_part_of_an_answer(printed: str, read: str) -> None:
    assert strip_escapes(printed) == read


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("\x1b[31mred\x1b[0m\n\n", "red\n\n"),
        ("one\rtwo\r\nthree\r", "one\ntwo\nthree\n"),
        ("a\x00b\x1b]0;title\x07\tc  ", "ab\tc  "),
        ("\x1b[1", "1"),
    ],
)
def test_a_result_of_a_tool_stays_whole_but_for_its_codes(said: str, read: str) -> None:
    assert sanitize(said) == read


def test_codes_hide_nowhere_in_a_value() -> None:
    value = {"\x1b[1ma": ["\x1b[31mred", 1, None, {"b": "\x07"}]}
    assert sanitize_value(value) == {"a": ["red", 1, None, {"b": ""}]}
