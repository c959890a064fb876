"""The known name that a misspelt one was meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known name that is most like `name`, and at least by `likeness`, 1.0 for the same."""
    plain = {_plain(one): one for one in known}
    found = get_close_matches(_plain(name), plain, 1, likeness)
    return plain[found[0]] if found else None


def question(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: a question where one is near, else a stop."""
    meant = nearest(name, known)
    return f"; did you mean {meant}?" if meant else "."


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
