"""JSON as it is read from others: what the standard leaves open is refused.

Parsers differ in what they make of NaN, of 1e999, and of an object with a key that stands twice: a
guard that read the first value would let pass what an agent reads as the second.
"""

import json
import math
from collections import Counter, UserDict
from typing import Any

KEY_CHARS_SHOWN = 60


class DuplicateKey(ValueError):
    """A key that stands twice in one object."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key[:KEY_CHARS_SHOWN]!a} stands twice in an object: keep one")


class Doubled(UserDict[str, Any]):
    """An object in which a key stands twice; it has no JSON form."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        #: Of the object's keys.
        self.fault = DuplicateKey(_repeated(pairs))


def parse(text: str | bytes) -> Any:
    """The value. Raises DuplicateKey, and ValueError for anything else that is not JSON."""
    return _decode(_STRICT, text)


def parse_marked(text: str | bytes) -> Any:
    """The value, with a Doubled for each object in which a key stands twice. Raises ValueError.

    For texts with several events, of which the others are good.
    """
    return _decode(_MARKING, text)


def _decode(decoder: json.JSONDecoder, text: str | bytes) -> Any:
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    try:
        # A byte order mark is no part of the text (RFC 8259, section 8.1).
        return decoder.decode(text.removeprefix("\ufeff"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DuplicateKey(_repeated(pairs))
    return found


def _marked(pairs: list[tuple[str, Any]]) -> "dict[str, Any] | Doubled":
    found = dict(pairs)
    return found if len(found) == len(pairs) else Doubled(pairs)


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    return Counter(key for key, _ in pairs).most_common(1)[0][0]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


_STRICT = json.JSONDecoder(
    parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_object
)
_MARKING = json.JSONDecoder(
    parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_marked
)
