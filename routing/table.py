"""The rules of the route table, and an index of many rules: an event tries only a few of them.

A rule has conditions, all of which must hold, and targets. Each rule is indexed by one of its
conditions: by values of a field, or by an attribute's prefix. Of several conditions the one shared
by the fewest rules is chosen. An event looks up its own values, and tries the rules found there and
all rules without an index. So a thousand rules that differ in one field cost about as much as ten.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from routing.conditions import Patterns, Values, flat, value_at
from routing.errors import InvalidRoute
from routing.event import Event

Match = Literal["first", "all"]

#: Every event has these. A subject is optional, so `subject = "*"` requires a subject.
_ALWAYS_THERE = ("type", "source")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule; without conditions it matches everything. Create it with `Rule.checked`."""

    name: str
    to: tuple[str, ...]
    patterns: Mapping[str, Patterns]  #: of `type`, `source` and `subject`
    data: Mapping[str, Values]  #: by dotted path

    @classmethod
    def checked(
        cls,
        *,
        name: str,
        to: Sequence[str],
        patterns: Mapping[str, Sequence[str] | None],
        data: Mapping[str, Any],
    ) -> "Rule":
        """Validate a configured rule; a pattern that is None is unset.

        Raises InvalidRoute naming the key of a condition that can never hold.
        """
        if not _NAME.match(name):
            raise InvalidRoute(
                "routes.rules: each needs a name of letters, digits, '-' and '_', 64 at most."
            )
        key = f"routes.rules.{name}"
        if not to:
            raise InvalidRoute(f"{key}.to is empty: name at least one target.")
        wanted = {
            attribute: Patterns.checked(f"{key}.{attribute}", given)
            for attribute, given in patterns.items()
            if given is not None
        }
        for attribute in _ALWAYS_THERE:
            if attribute in wanted and wanted[attribute].everything:
                del wanted[attribute]
        values: dict[str, Values] = {}
        for path, value in flat(data):
            if path in values:
                raise InvalidRoute(
                    f"{key}.data.{path} is there twice, written in two ways: remove one."
                )
            values[path] = Values.checked(f"{key}.data.{path}", path, value)
        return cls(name=name, to=tuple(to), patterns=wanted, data=values)

    @property
    def key(self) -> str:
        """The rule's key in the configuration."""
        return f"routes.rules.{self.name}"

    @property
    def everything(self) -> bool:
        """True when the rule has no condition."""
        return not self.patterns and not self.data

    def match(self, event: Event) -> bool:
        """True when every condition holds."""
        for attribute, patterns in self.patterns.items():
            if not patterns.match(getattr(event, attribute)):
                return False
        return all(values.match(event.data) for values in self.data.values())

    def covers(self, other: "Rule") -> bool:
        """True only when every match of `other` is a match of this one too."""
        if not (
            self.patterns.keys() <= other.patterns.keys() and self.data.keys() <= other.data.keys()
        ):
            return False
        return all(
            patterns.covers(other.patterns[attribute])
            for attribute, patterns in self.patterns.items()
        ) and all(values.covers(other.data[path]) for path, values in self.data.items())

    def index_keys(self) -> Iterator[dict["FieldPath", frozenset[Hashable]]]:
        """For each indexable condition: the fields of an event, and their possible values."""
        for attribute, patterns in self.patterns.items():
            if found := patterns.index_keys():
                yield {FieldPath(attribute, (), n): frozenset(texts) for n, texts in found.items()}
        for values in self.data.values():
            yield {FieldPath("data", values.path): values.values}


@dataclass(frozen=True, slots=True, order=True)
class FieldPath:
    """An indexed part of an event: a field of its data, an attribute, or an attribute's prefix."""

    attribute: str
    path: tuple[str, ...] = ()
    length: int | None = None  #: of the prefix; None: the whole attribute

    def of_event(self, event: Event) -> Hashable:
        """The event's value of this part; None where it is absent."""
        if self.path:
            return value_at(event.data, self.path)
        text: str | None = getattr(event, self.attribute)
        return text if text is None or self.length is None else text[: self.length]

    def of_rule(self, rule: Rule) -> Hashable:
        """The value of this part in some event that the rule matches; None when unknown."""
        if self.path:
            values = rule.data.get(".".join(self.path))
            return next(iter(values.values)) if values else None
        patterns = rule.patterns.get(self.attribute)
        if patterns is None:
            return None
        text, whole = patterns.probe()
        return (text if whole else None) if self.length is None else text[: self.length]


@dataclass(frozen=True, slots=True)
class Table:
    """The rules and their index. Create it with `Table.checked`."""

    rules: tuple[Rule, ...]
    match: Match
    indexed: Mapping[FieldPath, Mapping[Hashable, Sequence[int]]]  #: positions in `rules`
    unindexed: Sequence[int]  #: positions of rules without an index

    @classmethod
    def checked(cls, rules: Sequence[Rule], match: Match) -> "Table":
        """Index the rules. Raises InvalidRoute for a duplicate, or a rule that cannot apply."""
        for name, times in Counter(rule.name for rule in rules).items():
            if times > 1:
                raise InvalidRoute(f"routes.rules.{name} is there {times} times: rename one.")
        shared = Counter(
            (place, value)
            for rule in rules
            for index_key in rule.index_keys()
            for place, values in index_key.items()
            for value in values
        )
        indexed: dict[FieldPath, dict[Hashable, list[int]]] = {}
        unindexed: list[int] = []
        table = cls(tuple(rules), match, indexed, unindexed)
        for position, rule in enumerate(rules):
            table._check_reachable(rule)
            index_key = min(
                rule.index_keys(),
                key=lambda index_key: max(
                    shared[at, v] for at, values in index_key.items() for v in values
                ),
                default=None,
            )
            if index_key is None:
                unindexed.append(position)
                continue
            for place, values in index_key.items():
                for value in values:
                    indexed.setdefault(place, {}).setdefault(value, []).append(position)
        return table

    @property
    def everything(self) -> Rule | None:
        """The rule that matches every event, or None."""
        return next((rule for rule in self.rules if rule.everything), None)

    def find(self, event: Event) -> list[Rule]:
        """The first matching rule, or all matching rules in the order of the file."""
        places = set(self._positions(lambda place: place.of_event(event)))
        found = sorted(places.union(self.unindexed)) if places else self.unindexed
        matching = (rule for rule in map(self.rules.__getitem__, found) if rule.match(event))
        if self.match == "all":
            return list(matching)
        first = next(matching, None)
        return [] if first is None else [first]

    def _positions(self, key_of: Callable[[FieldPath], Hashable]) -> Iterator[int]:
        for place, there in self.indexed.items():
            yield from there.get(key_of(place), ())

    def _check_reachable(self, rule: Rule) -> None:
        """Compare a rule with the few earlier rules that may cover it. Raises InvalidRoute."""
        candidates = {*self._positions(lambda place: place.of_rule(rule)), *self.unindexed}
        for earlier in (self.rules[position] for position in sorted(candidates)):
            if not earlier.covers(rule):
                continue
            if rule.covers(earlier):
                what = "matches everything" if rule.everything else "has the same conditions"
                raise InvalidRoute(
                    f"{rule.key} {what}, as {earlier.key} does: keep one, with both targets."
                )
            if self.match == "first":
                raise InvalidRoute(
                    f"{rule.key} can never apply: {earlier.key} before it matches all that it does."
                )
