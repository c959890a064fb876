"""Text without what only a terminal understands."""

import re

#: What moves a terminal's cursor, colours or title: CSI, OSC and the short sequences (ECMA-48).
CODES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[PX^_][^\x1b]*\x1b\\|\x1b[ -/]*[0-~]"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def plain(text: str) -> str:
    """Text as a person reads it: no terminal codes, no control characters, no blank end."""
    lines = CODES.sub("", text).replace("\r\n", "\n").split("\n")
    # A carriage return starts the line again: a progress bar's last state is what stays.
    kept = (_CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in lines)
    return "\n".join(kept).rstrip()
