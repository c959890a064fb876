"""Text typed to a program, its echo known again, and the answer found in the output."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.terminal.screen import Screen
from tasks.terminal.text import echoes, extract_answer, keystrokes, typeable

ANY_TEXT = st.text(st.characters(codec=None)) | st.text("a\x03\x04\x1b[201~\r\n\t\x7f\x9b\u2028 ")
WORDS = st.text("abcXYZ 0123.,;:!?|/\\-_'\"", min_size=1, max_size=400).filter(str.strip)


@given(ANY_TEXT)
def test_whatever_an_event_holds_only_text_is_typed(text: str) -> None:
    typed = typeable(text)
    assert typeable(typed) == typed
    for brackets_pastes in (False, True):
        keys = keystrokes(typed, brackets_pastes=brackets_pastes).decode()
        if brackets_pastes and "\n" in typed:
            assert keys.startswith("\x1b[200~")
            assert keys.endswith("\x1b[201~")
            keys = keys[6:-6].replace("\r", "")
        assert not [char for char in keys if unicodedata.category(char) == "Cc"]


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("stop\x03", "stop"),
        ("\x1b[201~\rrm -rf", "[201~\nrm -rf"),
        ("one\r\ntwo\u2028three\x85four", "one\ntwo\nthree\nfour"),
        ("\n\n padded \n", "padded"),
        ("a\tb", "a   b"),
        ("ünï ✓ 漢字", "ünï ✓ 漢字"),
        ("\x00\x01", ""),
    ],
)
def test_control_characters_are_taken_out(text: str, typed: str) -> None:
    assert typeable(text) == typed


def test_several_lines_are_one_paste_or_one_line() -> None:
    assert keystrokes("a\nb", brackets_pastes=True) == b"\x1b[200~a\rb\x1b[201~"
    assert keystrokes("a\nb", brackets_pastes=False) == b"a b"
    assert keystrokes("a b", brackets_pastes=True) == b"a b"


@given(WORDS)
def test_an_echo_is_known_whatever_the_terminal_wraps_and_frames(text: str) -> None:
    typed = typeable(text)
    rows = [typed[at : at + 30] for at in range(0, len(typed), 30)]
    framed = "\r\n".join(f"\u2502 {row:30} \u2502" for row in rows)
    screen = Screen()
    mark = screen.mark()
    screen.feed(f"> {typed}\r\n".encode())
    assert echoes("\n".join(screen.lines_since(mark)), typed)
    assert echoes(framed, typed)


@pytest.mark.parametrize(
    ("output", "text", "seen"),
    [
        ("> hi", "hi", True),
        ("> this is it", "hi", False),
        ("[Pasted text #1 +12 lines]", "a long text", False),
        ("> first li\n  ne\n> second", "first line\nsecond", True),
        ("the end only: " + "z" * 130, "a" * 50 + "z" * 130, True),
        ("", "hi", False),
    ],
)
def test_what_counts_as_an_echo(output: str, text: str, seen: bool) -> None:
    assert echoes(output, text) is seen


@pytest.mark.parametrize(
    ("lines", "text", "prompt", "answer"),
    [
        (["1+1", "2", ">>>"], "1+1", ">>> ", "2"),
        (["hi", "hi", ">"], "hi", "> ", "hi"),
        (["hi", "hi there", "", "  indented", "", "$"], "hi", "$", "hi there\n\n  indented"),
        (["if 1:", "...     print(4)", "4", ">>>"], "if 1:\n    print(4)", ">>> ", "4"),
        (["say no more", "said>"], "say no more", "> ", "said"),
        (["x = 1", ">>>"], "x = 1", ">>> ", ""),
        (["hi there"], "hi", "", "hi there"),
        (["b" * 80, "b" * 80, "seen"], "a" * 90 + "b" * 160, "", "seen"),
    ],
)
def test_the_answer_is_neither_echo_nor_prompt(
    lines: list[str], text: str, prompt: str, answer: str
) -> None:
    assert extract_answer(lines, text, [prompt]) == answer


def test_where_a_screen_was_drawn_anew_the_echo_may_come_later() -> None:
    lines = ["3 messages", "> go on", "", "so be it"]
    assert extract_answer(lines, "go on", [], redrawn=True) == "so be it"
