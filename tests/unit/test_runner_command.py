"""What a program printed, as a person reads it."""

import pytest

from tasks.terminal.plain import plain


@pytest.mark.parametrize(
    ("printed", "read"),
    [
        ("hello\n", "hello"),
        ("\x1b[1;31mred\x1b[0m and \x1b]0;title\x07plain", "red and plain"),
        ("\x1b]8;;https://x.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("10%\r50%\rdone\nnext\r\n", "done\nnext"),
        ("a\x00b\x08c\x7f\td", "abc\td"),
        ("\x1b[?25l\x1b[2J\x1b[Htop\x1b[?25h", "top"),
        ("ünï ✓", "ünï ✓"),
        ("", ""),
    ],
)
def test_terminal_codes_are_no_part_of_an_answer(printed: str, read: str) -> None:
    assert plain(printed) == read
