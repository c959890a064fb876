"""The routes of a fleet, validated as a whole."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from routing.errors import InvalidEvent, InvalidRoute, UnknownTarget
from routing.event import LANES
from routing.rule import Rule
from routing.table import Match, Table
from routing.targets import Reach, Targets, check_once

#: Real work is forwarded two or three times; a loop of agents would forward it forever.
MAX_HOPS_DEFAULT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The routes of a fleet. Create it with `Rules.checked`, which validates them."""

    targets: Targets
    table: Table
    reach: Mapping[str, Reach] = field(default_factory=dict)  #: of each rule, by its name
    default: tuple[str, ...] = ()
    mentions: bool = True
    max_hops: int = MAX_HOPS_DEFAULT
    lanes: Mapping[str, int] = field(default_factory=lambda: LANES)

    @classmethod
    def checked(
        cls,
        agents: Iterable[str],
        groups: Mapping[str, Sequence[str]],
        default: Sequence[str],
        mentions: bool,
        chains: Iterable[str] = (),
        *,
        rules: Sequence[Rule] = (),
        match: Match = "first",
        max_hops: int = MAX_HOPS_DEFAULT,
        lanes: Mapping[str, int] = LANES,
    ) -> "Rules":
        """Validate routes: every name must resolve, and every rule must be able to apply.

        Raises InvalidRoute naming the key.
        """
        targets = Targets.checked(agents, groups, chains)
        check_targets("routes.default", default, targets)
        reach = {rule.name: check_targets(f"{rule.key}.to", rule.to, targets) for rule in rules}
        for name, reached in reach.items():
            if reached.chain and match == "all":
                raise InvalidRoute(
                    f"routes.rules.{name}.to names a chain, which must be an event's only target: "
                    'set routes.match = "first".'
                )
        table = Table.checked(rules, match)
        if default and table.everything:
            raise InvalidRoute(
                f"routes.default can never apply: {table.everything.key} matches everything."
            )
        return cls(
            targets=targets,
            table=table,
            reach=reach,
            default=tuple(default),
            mentions=mentions,
            max_hops=max_hops,
            lanes=lanes,
        )

    def members(self, target: str) -> tuple[str, ...] | None:
        """The agents of a target; None for an unknown name."""
        return self.targets.members(target)


def check_targets(key: str, names: Sequence[str], targets: Targets) -> Reach:
    """Resolve configured targets. Raises InvalidRoute naming the key."""
    check_once(key, names)
    for name in names:
        try:
            targets.resolve((name,))
        except UnknownTarget:
            raise InvalidRoute(
                f"{key} names {name!r}, which is not an agent, @group or chain:NAME."
            ) from None
    try:
        return targets.resolve(names)
    except InvalidEvent:
        raise InvalidRoute(f"{key} names a chain, which must be its only target.") from None
