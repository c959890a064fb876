"""The routing decision: an event and a route table in, a plan out. Same input, same plan."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from routing.errors import InvalidEvent, TooManyHops
from routing.event import Event
from routing.rule import Rule
from routing.rules import Rules
from routing.targets import GROUP_MARK, Reach

#: A mention starts a word: an e-mail address (`ann@gem.example`) mentions nobody.
_MENTION = re.compile(r"(?<![\w@.])@([A-Za-z0-9][A-Za-z0-9_-]{0,63})")


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
            if rules.members(GROUP_MARK + name) is not None
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
        for agent in rules.members(target) or ():
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
