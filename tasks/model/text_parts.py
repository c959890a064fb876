"""Text of a message as one string, in whichever form a provider sends it."""

import re
from collections.abc import Hashable, Mapping
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def text_in(content: Any) -> str | None:
    """The text of a message's content: a string, or a list of parts; None where it has none."""
    if content is None or isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [_text_of(part) for part in parts]
    return "".join(text for text in texts if text is not None)


def refusal_in(message: Mapping[str, Any]) -> str:
    """The refusal in a message, or in a part of its content; an empty string without one."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    found = [message, *(part for part in parts if isinstance(part, Mapping))]
    refusals = (one.get("refusal") for one in found)
    return next((text for text in refusals if isinstance(text, str) and text), "")


class Halves:
    """Joins characters that were split over two pieces of a text, in escapes of JSON."""

    def __init__(self) -> None:
        self._held: dict[Hashable, str] = {}

    def join(self, text_name: Hashable, piece: str, *, last: bool = False) -> str:
        """The piece with the half before it, and without a half at its end unless it is the last.

        A half that stays alone becomes a replacement character.
        """
        text = self._held.pop(text_name, "") + piece
        if not _SURROGATE.search(text):
            return text
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if not last and "\ud800" <= text[-1] <= "\udbff":
            self._held[text_name], text = text[-1], text[:-1]
        return _SURROGATE.sub(_REPLACEMENT, text)


def _text_of(part: Any) -> str | None:
    """The text of one part; None for a picture, a thought and every other kind."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping) or part.get("type", "text") not in ("text", "output_text"):
        return None
    text = part.get("text")
    if isinstance(text, Mapping):
        text = text.get("value")
    return text if isinstance(text, str) else None
