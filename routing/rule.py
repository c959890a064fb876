"""One rule of the route table: conditions, all of which must hold, and targets."""

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from routing.conditions import Patterns, Values, flat, value_at
from routing.errors import InvalidRoute
from routing.event import Event

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
