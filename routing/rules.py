"""The route table, read from the configuration and checked whole."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from routing.errors import InvalidRoute

ALL_HANDS = "all"
GROUP_MARK = "@"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Every name an event can reach. Build it with `Rules.checked`, which refuses a wrong one."""

    agents: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default: tuple[str, ...] = ()
    mentions: bool = True

    @classmethod
    def checked(
        cls,
        agents: Iterable[str],
        groups: Mapping[str, Sequence[str]],
        default: Sequence[str],
        mentions: bool,
    ) -> "Rules":
        """A table in which every name resolves.

        Raises InvalidRoute naming the key, for a group or a default that reaches nobody.
        """
        names = tuple(agents)
        known = frozenset(names)
        for group, members in groups.items():
            if not members:
                raise InvalidRoute(f"routes.groups.{group} is empty: name at least one agent.")
            for member in members:
                if member not in known:
                    raise InvalidRoute(
                        f"routes.groups.{group} names {member!r}, which is no agent."
                    )
        rules = cls(
            agents=names,
            groups={group: tuple(members) for group, members in groups.items()},
            default=tuple(default),
            mentions=mentions,
        )
        for target in rules.default:
            if rules.members(target) is None:
                raise InvalidRoute(f"routes.default names {target!r}, which is no agent or @group.")
        return rules

    def members(self, target: str) -> tuple[str, ...] | None:
        """The agents behind one target, or None when nobody has that name."""
        if target == ALL_HANDS:
            return self.agents
        if target.startswith(GROUP_MARK):
            name = target[len(GROUP_MARK) :]
            return self.groups.get(name) or ((name,) if name in self.agents else None)
        return (target,) if target in self.agents else None
