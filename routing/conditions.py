"""The conditions of a routing rule: patterns for an event's attributes, values for its data."""

import fnmatch
import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from routing.errors import InvalidRoute
from routing.event import OWN_FIELDS

#: A pattern with one of these characters is a shell's glob; any other pattern is literal.
_GLOB_CHARS = re.compile(r"[*?\[]")
_ALL = "*"


@dataclass(frozen=True, slots=True)
class Patterns:
    """A condition on an attribute: it equals one of `exact` or matches one of `globs`."""

    exact: frozenset[str]
    globs: tuple[str, ...] = ()
    regex: re.Pattern[str] | None = None  #: all globs at once

    @classmethod
    def checked(cls, key: str, patterns: Sequence[str]) -> "Patterns":
        """Validate patterns. Raises InvalidRoute for an empty list or pattern, or a duplicate."""
        if not patterns:
            raise InvalidRoute(f"{key} is empty: name at least one pattern, or leave the key out.")
        if not all(patterns):
            raise InvalidRoute(f"{key} holds an empty pattern: nothing matches it.")
        if len(set(patterns)) < len(patterns):
            raise InvalidRoute(f"{key} holds a pattern twice.")
        globs = tuple(sorted(pattern for pattern in patterns if _GLOB_CHARS.search(pattern)))
        together = "|".join(f"(?:{fnmatch.translate(glob)})" for glob in globs)
        return cls(
            exact=frozenset(patterns) - frozenset(globs),
            globs=globs,
            regex=re.compile(together) if globs else None,
        )

    def index_keys(self) -> dict[int | None, set[str]] | None:
        """The prefixes of all globs by length, and under None the exact values; a match meets one.

        None when a glob has no literal prefix.
        """
        found: dict[int | None, set[str]] = {None: set(self.exact)} if self.exact else {}
        for glob in self.globs:
            start = _literal_start(glob)
            if not start:
                return None
            found.setdefault(len(start), set()).add(start)
        return found

    def probe(self) -> tuple[str, bool]:
        """A prefix of some matching value; True when the prefix is the whole value."""
        if self.exact:
            return min(self.exact), True
        return _literal_start(self.globs[0]), False

    @property
    def everything(self) -> bool:
        """True when it matches every present attribute."""
        return _ALL in self.globs

    def match(self, value: str | None) -> bool:
        """True when the value matches; an absent attribute (None) matches nothing."""
        if value is None:
            return False
        return value in self.exact or (self.regex is not None and bool(self.regex.match(value)))

    def covers(self, other: "Patterns") -> bool:
        """True only when every match of `other` is a match of this one too."""
        return all(self.match(value) for value in other.exact) and all(
            glob in self.globs or self._covers_glob(glob) for glob in other.globs
        )

    def _covers_glob(self, other: str) -> bool:
        # With stars only, each wildcard of `other` is matched by a star, which matches any text.
        starred = (glob for glob in self.globs if "?" not in glob and "[" not in glob)
        return any(fnmatch.fnmatchcase(other, glob) for glob in starred)


def _literal_start(glob: str) -> str:
    wild = _GLOB_CHARS.search(glob)
    return glob[: wild.start()] if wild else glob


@dataclass(frozen=True, slots=True)
class Values:
    """A condition on a field of the data: it equals one of `values`, made by `comparable`."""

    path: tuple[str, ...]
    values: frozenset[Hashable]

    @classmethod
    def checked(cls, key: str, path: str, wanted: object) -> "Values":
        """Validate a path and values. Raises InvalidRoute for those that no event can have."""
        names = tuple(path.split("."))
        if not all(names):
            raise InvalidRoute(f"{key}: a field is named by a path such as build.status.")
        if names[0] in OWN_FIELDS:
            raise InvalidRoute(f"{key}: {names[0]!r} is the event's own field, not of its data.")
        options = wanted if isinstance(wanted, list | tuple) else [wanted]
        found = [comparable(option) for option in options]
        if not found or None in found:
            raise InvalidRoute(
                f"{key} must be a string, a finite number, true or false, or a list of these."
            )
        if len(set(found)) < len(found):
            raise InvalidRoute(f"{key} holds a value twice.")
        return cls(names, frozenset(found))

    def match(self, data: Mapping[str, Any]) -> bool:
        """True when the field matches; an absent field, a list or an object matches nothing."""
        return value_at(data, self.path) in self.values

    def covers(self, other: "Values") -> bool:
        """True when every match of `other` is a match of this one too."""
        return other.values <= self.values


def value_at(data: Mapping[str, Any], path: tuple[str, ...]) -> Hashable:
    """The comparable value at a path of the data; None where there is none."""
    found: Any = data
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return comparable(found)


def comparable(value: object) -> Hashable:
    """A hashable form of a scalar in which 1 equals 1.0 but not true; None for other values."""
    if isinstance(value, bool):
        return bool, value
    if isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value)):
        return value
    return None


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested tables to dotted paths: TOML nests `data.build.ok = true`."""
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
