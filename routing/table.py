"""An index of many rules: an event tries only a few of them.

Each rule is indexed by one of its conditions: by values of a field, or by an attribute's prefix. Of
several conditions the one shared by the fewest rules is chosen. An event looks up its own values,
and tries the rules found there and all rules without an index. So a thousand rules that differ in
one field cost about as much as ten.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from routing.errors import InvalidRoute
from routing.event import Event
from routing.rule import FieldPath, Rule

Match = Literal["first", "all"]


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
