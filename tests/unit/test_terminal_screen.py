"""A program's output as a person sees it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.terminal.screen import COLUMNS, ROWS, Screen

SEQUENCES = st.sampled_from(
    [
        *(
            "\x1b[",
            "\x1b]0;t",
            "\x1bP",
            "\x1b\\",
            "\x07",
            "\x1b",
            "m",
            "?",
            "2J",
            "H",
            "\r\n",
            "\t",
        ),
        *("\x1b[5A", "\x1b[9999B", "\x1b[3;7r", "\x1b[2L", "\x1b[M", "\x1b[4P", "\x1b[4@", "\x1bM"),
        *("\x1b[?1049h", "\x1b[?1049l", "\x1b[1J", "\x1b[K", "\x1b[6n", "\x1b[3b", "\x1bc", "漢"),
        *("e\u0301", "plain text", "x" * 170, "\n" * 60, "\b", "\x9b", "\x1b[0 q", "\x1b[>1u"),
    ]
)
OUTPUT = st.lists(SEQUENCES | st.text(max_size=5), max_size=30).map("".join)


def printed(output: str) -> list[str]:
    screen = Screen()
    mark = screen.mark()
    screen.feed(output.encode())
    lines = screen.lines_since(mark)
    while lines and not lines[-1]:
        lines.pop()
    return lines


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("\x1b[1;31mred\x1b[0m \x1b]8;;https://x.example\x1b\\link\x1b]8;;\x1b\\", ["red link"]),
        ("10%\r50%\rdone", ["done"]),
        ("abc\b\bX\x1b[Kend", ["aXend"]),
        ("\x1b[>1u\x1b[0 q\x1b(Bplain\x1bPq#0\x1b\\", ["plain"]),
        ("a" * (COLUMNS + 5) + "\r\nb", ["a" * (COLUMNS + 5), "b"]),
        ("漢字\x1b[2D漢", ["漢漢"]),
        ("e\u0301a", ["e\u0301a"]),
        ("first\x1b[2;3Hsecond\x1b[1;6H!", ["first!", "  second"]),
        ("\r\n".join(map(str, range(200))), [str(number) for number in range(200)]),
        ("busy\x1b[1G\x1b[2Kanswer", ["answer"]),
    ],
)
def test_codes_move_the_cursor_and_are_no_text(output: str, lines: list[str]) -> None:
    assert printed(output) == lines


def test_a_long_line_is_one_again_wherever_it_ends_up() -> None:
    lines = ["y" * 1000, *(["filler"] * 2 * ROWS), "z" * 400]
    assert printed("\r\n".join(lines)) == lines


def test_what_follows_the_mark_is_told_from_the_cursor_on() -> None:
    screen = Screen()
    screen.feed(b"banner\r\n> ")
    mark = screen.mark()
    assert mark.prompt == "> "
    screen.feed(b"typed\r\nanswer\r\n> ")
    assert screen.lines_since(mark)[:3] == ["typed", "answer", ">"]
    assert not screen.redrawn


def test_a_screen_drawn_anew_tells_what_was_not_there() -> None:
    screen = Screen()
    frame = b"\x1b[?1049h\x1b[2J\x1b[Htitle\x1b[5;1H> \x1b[6;1Hidle\x1b[5;3H"
    screen.feed(frame)
    mark = screen.mark()
    screen.feed(b"typed\x1b[6;1H\x1b[2Kthinking")
    screen.feed(b"\x1b[2J\x1b[Htitle\x1b[3;1Hanswer\x1b[5;1H> \x1b[6;1Hidle\x1b[5;3H")
    assert screen.redrawn
    assert [line for line in screen.lines_since(mark) if line] == ["answer"]
    assert (screen.cursor_line(), screen.last_line()) == ("> ", "idle")


def test_it_answers_what_a_terminal_is_asked() -> None:
    screen = Screen()
    screen.feed(b"ab\x1b[6n\x1b[5n\x1b[c\x1b[?6n\x1b[?2004h")
    assert screen.replies == b"\x1b[1;3R\x1b[0n\x1b[?6c\x1b[?1;3R"
    assert screen.brackets_pastes
    screen.feed(b"\x1b[6n" * 10_000)
    assert len(screen.replies) < 300


@given(st.binary(max_size=300))
def test_nothing_upsets_it(data: bytes) -> None:
    screen = Screen()
    mark = screen.mark()
    screen.feed(data)
    assert all("\x1b" not in line for line in screen.lines_since(mark))


@given(output=OUTPUT, cuts=st.lists(st.integers(0, 400), max_size=5))
def test_it_does_not_matter_in_which_pieces_output_comes(output: str, cuts: list[int]) -> None:
    whole, pieces = Screen(), Screen()
    marks = whole.mark(), pieces.mark()
    data = output.encode()
    whole.feed(data)
    places = [0, *sorted(cuts), len(data)]
    for begin, end in pairwise(places):
        pieces.feed(data[begin:end])
    assert pieces.lines_since(marks[1]) == whole.lines_since(marks[0])
    assert pieces.cursor_line() == whole.cursor_line()
