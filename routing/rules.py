"""The routes of a fleet, validated as a whole, and the decision: an event in, a plan out.

A target is an agent, `@group`, `all` or `chain:NAME`. Same event, same routes, same plan.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from routing.errors import InvalidEvent, InvalidRoute, TooManyHops, UnknownTarget
from routing.event import LANES, Event
from routing.nearest_name import question
from routing.table import Match, Rule, Table

ALL_HANDS = "all"
GROUP_MARK = "@"
CHAIN_MARK = "chain:"

_GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
#: A mention starts a word: an e-mail address (`ann@gem.example`) mentions nobody.
_MENTION = re.compile(r"(?<![\w@.])@([A-Za-z0-9][A-Za-z0-9_-]{0,63})")

#: Real work is forwarded two or three times; a loop of agents would forward it forever.
MAX_HOPS_DEFAULT = 8


@dataclass(frozen=True, slots=True)
class Reach:
    """The result of a list of targets: agents, each once and in order, or one chain."""

    agents: tuple[str, ...]
    chain: str | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """Every target of a fleet. Create it with `Targets.checked`."""

    reach: Mapping[str, tuple[str, ...]]  #: target -> its agents; without chains
    chains: frozenset[str]

    @classmethod
    def checked(
        cls,
        agents: Iterable[str],
        groups: Mapping[str, Sequence[str]],
        chains: Iterable[str] = (),
    ) -> "Targets":
        """Resolve every target. Raises InvalidRoute naming the key of an invalid group."""
        names = tuple(agents)
        known = frozenset(names)
        reach: dict[str, tuple[str, ...]] = {ALL_HANDS: names}
        for name in names:
            reach[name] = reach[GROUP_MARK + name] = (name,)
        for group, members in groups.items():
            _check_group(group, members, known)
            reach[GROUP_MARK + group] = tuple(members)
        return cls(reach, frozenset(chains))

    @property
    def names(self) -> tuple[str, ...]:
        """Every target as it is written."""
        return (*self.reach, *(CHAIN_MARK + name for name in self.chains))

    def members(self, target: str) -> tuple[str, ...] | None:
        """The agents of a target; None for an unknown name."""
        return self.reach.get(target)

    def resolve(self, targets: Sequence[str]) -> Reach:
        """Resolve targets together.

        Raises UnknownTarget for an unknown name, and InvalidEvent for a chain beside another
        target: a chain's stages run in order, so it cannot be part of a fan-out.
        """
        agents: dict[str, None] = {}
        chain = None
        for target in targets:
            members = self.reach.get(target)
            if members is not None:
                agents.update(dict.fromkeys(members))
            elif target.removeprefix(CHAIN_MARK) in self.chains and target.startswith(CHAIN_MARK):
                chain = target.removeprefix(CHAIN_MARK)
            else:
                raise UnknownTarget(
                    f"There is no agent, group or chain {target[:64]!r} in this fleet.", target
                )
        if chain is not None and len(targets) > 1:
            raise InvalidEvent(
                f"`{CHAIN_MARK}{chain}` must be the only target: send the others an event of "
                "their own."
            )
        return Reach(tuple(agents), chain)


def _check_group(group: str, members: Sequence[str], known: frozenset[str]) -> None:
    key = f"routes.groups.{_shown(group)}"
    if not _GROUP_NAME.match(group) or group == ALL_HANDS:
        raise InvalidRoute(
            f"{key}: a group's name is letters, digits, '-' and '_', 64 at most, not 'all'."
        )
    if group in known:
        raise InvalidRoute(f"{key} has the name of an agent: `@{group}` could mean both.")
    if not members:
        raise InvalidRoute(f"{key} is empty: name at least one agent.")
    for member in members:
        if member not in known:
            end = question(member, known)
            raise InvalidRoute(f"{key} names {member!r}, which is not an agent{end}")
    check_once(key, members)


def check_once(key: str, names: Sequence[str]) -> None:
    """Raise InvalidRoute for a duplicate in a list."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidRoute(f"{key} names {name!r} twice.")
        seen.add(name)


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name[:64])


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


def check_targets(key: str, names: Sequence[str], targets: Targets) -> Reach:
    """Resolve configured targets. Raises InvalidRoute naming the key."""
    check_once(key, names)
    for name in names:
        try:
            targets.resolve((name,))
        except UnknownTarget:
            end = question(name, targets.names)
            raise InvalidRoute(
                f"{key} names {name!r}, which is not an agent, @group or chain:NAME{end}"
            ) from None
    try:
        return targets.resolve(names)
    except InvalidEvent:
        raise InvalidRoute(f"{key} names a chain, which must be its only target.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The agents of an event, each once, in order, or a chain; and the reason in words."""

    agents: tuple[str, ...]  #: empty for a chain
    reason: str
    chain: str | None = None  #: the chain's name, without `chain:`
    picks: tuple[tuple[str, str], ...] = ()  #: (reason, target), in the order of the decision
    upstream: bool = False  #: the event's outcomes are reported to the upstream gateway


def decide(event: Event, rules: Rules) -> Plan:
    """Resolve an event's targets: the first of `to`, mentions in its text, rules, the default.

    Raises UnknownTarget for an unknown name in `to`; an unknown mention is only text. Raises
    TooManyHops for an event that agents forwarded too often. Raises InvalidEvent for an event
    without any target, and for a chain beside another target.
    """
    if event.hops > rules.max_hops:
        raise TooManyHops(
            f"The event came through {event.hops} turns of agents, and routes.max_hops allows "
            f"{rules.max_hops}: agents are calling each other in a loop."
        )
    if event.to:
        reason = f"to: {', '.join(event.to)}"
        return _plan(rules.targets.resolve(event.to), reason, _picks("to", event.to))
    if rules.mentions and "@" in event.text:
        named = tuple(
            GROUP_MARK + name
            for name in dict.fromkeys(_MENTION.findall(event.text))
            if rules.targets.members(GROUP_MARK + name) is not None
        )
        if named:
            reason = f"mentions: {', '.join(named)}"
            return _plan(rules.targets.resolve(named), reason, _picks("mention", named))
    if found := rules.table.find(event):
        return _by_rules(found, rules)
    if rules.default:
        reach = rules.targets.resolve(rules.default)
        return _plan(reach, "routes.default", _picks("routes.default", rules.default))
    raise InvalidEvent("The event names no target and the fleet has no default route: set `to`.")


def explain(plan: Plan, rules: Rules) -> dict[str, list[str]]:
    """The reasons of each agent in a plan, in the order of the decision."""
    reasons: dict[str, list[str]] = {agent: [] for agent in plan.agents}
    for reason, target in plan.picks:
        for agent in rules.targets.members(target) or ():
            reasons[agent].append(f"{reason} {target}")
    return reasons


def _by_rules(found: Sequence[Rule], rules: Rules) -> Plan:
    picks = tuple(pick for rule in found for pick in _picks(f"{rule.key} to", rule.to))
    reason = f"routes.rules: {', '.join(rule.name for rule in found)}"
    if len(found) == 1:
        return _plan(rules.reach[found[0].name], reason, picks)
    together = dict.fromkeys(agent for rule in found for agent in rules.reach[rule.name].agents)
    return _plan(Reach(tuple(together)), reason, picks)


def _picks(reason: str, targets: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((reason, target) for target in targets)


def _plan(reach: Reach, reason: str, picks: tuple[tuple[str, str], ...]) -> Plan:
    return Plan(agents=reach.agents, chain=reach.chain, reason=reason, picks=picks)
