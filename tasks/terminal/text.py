"""The text typed to a program, its echo, and the answer in the program's output.

Terminals wrap text. Programs draw frames around it and put prompts before continued lines. So texts
are compared without white space and such characters.
"""

import unicodedata
from collections.abc import Sequence

_PASTE_BEGINS, _PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"
#: Every character that Unicode or a terminal treats as the end of a line.
_LINE_ENDS = str.maketrans(dict.fromkeys("\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", "\n"))
#: Control characters and halves of surrogate pairs.
_NEVER_TYPED = frozenset({"Cc", "Cs"})
#: The end of a long text, which may be all that is shown, proves that the program read all of it.
_PROOF_CHARS = 120
#: The first lines of a redrawn screen in which an echo is searched for.
_ECHO_LINES = 200
#: The characters searched, prompts and blank ends of rows included.
_ECHO_CHARS, _ECHO_CHARS_MAX = 4000, 100_000


def typeable(text: str) -> str:
    """The text without characters that a terminal would take for a command.

    Line ends are `\\n`, tabs are spaces, other control characters are gone; no blank ends.
    """
    lines = text.replace("\r\n", "\n").translate(_LINE_ENDS).expandtabs(4)
    return "".join(filter(_typed, lines)).strip()


def _typed(char: str) -> bool:
    return char == "\n" or unicodedata.category(char) not in _NEVER_TYPED


def keystrokes(text: str, *, brackets_pastes: bool) -> bytes:
    """The keys for a `typeable` text, before Enter.

    Several lines are one paste where the program wants it bracketed. Otherwise each line's end
    would be an Enter, so it becomes a space.
    """
    if "\n" not in text:
        return text.encode()
    if brackets_pastes:
        return _PASTE_BEGINS + text.replace("\n", "\r").encode() + _PASTE_ENDS
    return text.replace("\n", " ").encode()


def echoes(output: str, text: str) -> bool:
    """True when the output shows the text, or the end of a long one."""
    return _shown(output, "".join(text.split())) is not None


def begins(text: str, shown: str) -> bool:
    """True when `shown` is the text or a beginning of it."""
    significant = "".join(shown.split())
    return bool(significant) and "".join(text.split()).startswith(significant)


def extract_answer(
    lines: Sequence[str], text: str, prompts: Sequence[str], *, redrawn: bool = False
) -> str:
    """The answer in a program's output, without the echo of the text and the next prompt.

    The first of `prompts` that ends the output is removed. The echo comes first, unless the program
    has `redrawn` its screen.
    """
    body = "\n".join(lines).rstrip()
    found = (prompt.strip() for prompt in prompts)
    body = body.removesuffix(next((one for one in found if one and body.endswith(one)), ""))
    # Once: a program may answer with the same words.
    body = body[_echo_end(body, text, _ECHO_LINES if redrawn else 1) :]
    return "\n".join(line.rstrip() for line in body.split("\n")).strip("\n")


def _echo_end(body: str, text: str, lines: int) -> int:
    """The start of the answer, behind an echo that begins in one of the first lines."""
    significant = "".join(text.split())
    begin = 0
    for _ in range(lines):
        end = _behind(body, begin, significant, fresh=True)
        if end is not None:
            line_end = body.find("\n", end)
            rest = body[end : line_end if line_end >= 0 else len(body)]
            # Otherwise it is a longer line that begins like the text.
            if not any(char.isalnum() for char in rest):
                return end + len(rest)
        begin = body.find("\n", begin) + 1
        if not begin:
            break
    # Of a long text perhaps only the end is shown.
    if len(significant) <= _PROOF_CHARS:
        return 0
    return _shown(body[: min(4 * len(text) + _ECHO_CHARS, _ECHO_CHARS_MAX)], significant) or 0


def _shown(output: str, significant: str) -> int | None:
    """The position behind the text, or behind the end of a long text; None if it is not shown."""
    proof = significant[-_PROOF_CHARS:]
    at = output.find(proof[0]) if proof else -1
    while at >= 0:
        inside = len(proof) == len(significant) and at > 0 and _joined(output[at - 1], proof[0])
        end = None if inside else _behind(output, at, proof)
        if end is not None and not (end < len(output) and _joined(proof[-1], output[end])):
            return end
        at = output.find(proof[0], at + 1)
    return None


def _behind(output: str, at: int, wanted: str, *, fresh: bool = False) -> int | None:
    """The position behind `wanted`, which must begin at `at`; None when other text is there.

    `fresh`: at the beginning of a line, so that a prompt may stand before its text.
    """
    for char in wanted:
        while at < len(output) and output[at] != char:
            other = output[at]
            fresh = fresh or other == "\n"
            # Python's prompt ends the rows of a long line with a backslash.
            goes_on = other == "\\" and output[at + 1 : at + 2] == "\n"
            if not (_blank(other) or goes_on or (fresh and not other.isalnum())):
                return None
            at += 1
        if at == len(output):
            return None
        at += 1
        fresh = False
    return at


def _blank(char: str) -> bool:
    """True for white space and parts of frames."""
    return char.isspace() or char == "|" or "\u2500" <= char <= "\u259f"


def _joined(left: str, right: str) -> bool:
    """True when both may belong to one word."""
    return left.isalnum() and right.isalnum()
