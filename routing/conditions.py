"""What a routing rule asks of an event: patterns for its attributes, values for its data."""

import fnmatch
import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from routing.errors import InvalidRoute
from routing.event import OWN_FIELDS

#: A pattern that holds one of these is a glob, as a shell knows it; any other is meant literally.
_GLOB_CHARS = re.compile(r"[*?\[]")
_ALL = "*"


@dataclass(frozen=True, slots=True)
class Patterns:
    """One attribute must equal one of `exact` or match one of `globs`."""

    exact: frozenset[str]
    globs: tuple[str, ...] = ()
    regex: re.Pattern[str] | None = None  #: all globs at once

    @classmethod
    def checked(cls, key: str, patterns: Sequence[str]) -> "Patterns":
        """Raises InvalidRoute for none, for an empty one, and for one that stands there twice."""
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
        """By length, how each glob must begin; under None what must be equal. One of them is met.

        None when a glob may begin in any way.
        """
        found: dict[int | None, set[str]] = {None: set(self.exact)} if self.exact else {}
        for glob in self.globs:
            start = _literal_start(glob)
            if not start:
                return None
            found.setdefault(len(start), set()).add(start)
        return found

    def probe(self) -> tuple[str, bool]:
        """How anything begins that matches one of the patterns; True when it is all of it."""
        if self.exact:
            return min(self.exact), True
        return _literal_start(self.globs[0]), False

    @property
    def everything(self) -> bool:
        """True when it says nothing of an attribute that every event has."""
        return _ALL in self.globs

    def match(self, value: str | None) -> bool:
        """An attribute that the event does not have matches nothing."""
        if value is None:
            return False
        return value in self.exact or (self.regex is not None and bool(self.regex.match(value)))

    def covers(self, other: "Patterns") -> bool:
        """True only when whatever matches `other` matches this one too."""
        return all(self.match(value) for value in other.exact) and all(
            glob in self.globs or self._covers_glob(glob) for glob in other.globs
        )

    def _covers_glob(self, other: str) -> bool:
        # Where only stars are wild, what is wild in `other` fell to a star and may be anything.
        starred = (glob for glob in self.globs if "?" not in glob and "[" not in glob)
        return any(fnmatch.fnmatchcase(other, glob) for glob in starred)


def _literal_start(glob: str) -> str:
    wild = _GLOB_CHARS.search(glob)
    return glob[: wild.start()] if wild else glob


@dataclass(frozen=True, slots=True)
class Values:
    """One field of the data must equal one of these; as `comparable` makes them."""

    path: tuple[str, ...]
    values: frozenset[Hashable]

    @classmethod
    def checked(cls, key: str, path: str, wanted: object) -> "Values":
        """Raises InvalidRoute for a path or a value that no event can have."""
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
        """A field that is missing, or holds a list or an object, matches nothing."""
        return value_at(data, self.path) in self.values

    def covers(self, other: "Values") -> bool:
        """True when whatever matches `other` matches this one too."""
        return other.values <= self.values


def value_at(data: Mapping[str, Any], path: tuple[str, ...]) -> Hashable:
    """What stands in the data at a path, comparable; None where nothing comparable does."""
    found: Any = data
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return comparable(found)


def comparable(value: object) -> Hashable:
    """A scalar so that 1 equals 1.0 but not true; None for anything else."""
    if isinstance(value, bool):
        return bool, value
    if isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value)):
        return value
    return None


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A table of tables as dotted paths: TOML writes `data.build.ok = true` as such."""
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
