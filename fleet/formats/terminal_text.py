"""Text without escape sequences and control characters."""

import re
from typing import Any

#: Sequences for a terminal's cursor, colours or title: CSI, OSC and the short ones (ECMA-48), with
#: ESC and in their one-character form.
CODES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[PX^_][^\x1b]*\x1b\\|\x1b[ -/]*[0-~]"
)
#: Characters that control a terminal.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: Characters that change the direction of the text around them. A person's text may need them; in
#: a line that names things they show another order than there is.
DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def strip_escapes(text: str) -> str:
    """A program's output as a person reads it: no codes, no control characters, no blank end.

    A carriage return starts the line again: of a progress bar the last state stays.
    """
    lines = CODES.sub("", text).replace("\r\n", "\n").split("\n")
    kept = (CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in lines)
    return "\n".join(kept).rstrip()


def sanitize(text: str) -> str:
    """The whole text without codes and control characters; a lone carriage return ends a line."""
    return CONTROL.sub("", CODES.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def sanitize_value(value: Any) -> Any:
    """A JSON value with every text in it sanitized, names of members too."""
    if isinstance(value, str):
        return sanitize(value)
    if isinstance(value, dict):
        return {sanitize(str(name)): sanitize_value(item) for name, item in value.items()}
    if isinstance(value, list):
        return [sanitize_value(item) for item in value]
    return value
