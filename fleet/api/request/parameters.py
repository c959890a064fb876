"""Validated query parameters; the problem (400) of an invalid parameter names it."""

from collections.abc import Iterable

from starlette.datastructures import QueryParams

from fleet.api.request.problems import bad_parameter
from fleet.auth.tokens import Rights

#: Of a parameter's name in a sentence.
_SHOWN_CHARS_MAX = 60


def check_names(query: QueryParams, *known: str) -> None:
    """Refuse a parameter that the route does not have: a misspelt filter would select all."""
    for name in query:
        # A ticket, which any stream takes, has been redeemed.
        if name not in (*known, "ticket"):
            shown = name.encode("unicode_escape").decode()[:_SHOWN_CHARS_MAX]
            raise bad_parameter(shown, f"is not a parameter here; known: {', '.join(known)}")


def choices(query: QueryParams, name: str, known: Iterable[str]) -> frozenset[str]:
    """The values of a repeatable or comma-separated parameter, all of them in `known`."""
    chosen = texts(query, name)
    allowed = frozenset(known)
    if not chosen <= allowed:
        some = ", ".join(sorted(allowed)[:20])
        raise bad_parameter(name, f"must be one of {some}" + (" ..." if len(allowed) > 20 else ""))
    return chosen


def readable_choices(
    query: QueryParams, name: str, known: Iterable[str], rights: Rights
) -> frozenset[str]:
    """The values of such a parameter, each of which the caller may read.

    Raises Forbidden for any other, also for one that is not there: nobody learns what there is.
    """
    for value in texts(query, name):
        rights.need_read(value)
    return choices(query, name, rights.readable(known))


def texts(query: QueryParams, name: str) -> frozenset[str]:
    """The values of a repeatable or comma-separated parameter; empty when it is absent."""
    given = query.getlist(name)
    values = frozenset(part.strip() for value in given for part in value.split(","))
    if given and "" in values:
        raise bad_parameter(name, "must not be empty")
    return values


def number(query: QueryParams, name: str, default: int, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 17 and low <= int(text) <= high):
        raise bad_parameter(name, f"must be a whole number from {low} to {high}")
    return int(text)


def flag(query: QueryParams, name: str) -> bool:
    """A flag: `1` or `true`, `0` or `false`; false when it is absent."""
    text = query.get(name, "0")
    if text not in ("0", "1", "false", "true"):
        raise bad_parameter(name, "must be 1 or 0")
    return text in ("1", "true")
