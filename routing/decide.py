"""The decision: an event and a route table in, a plan out. Same input, same plan."""

import re
from dataclasses import dataclass

from routing.errors import InvalidEvent
from routing.event import Event
from routing.rules import Rules
from routing.targets import GROUP_MARK

#: A mention starts a word: an e-mail address (`ann@gem.example`) mentions nobody.
_MENTION = re.compile(r"(?<![\w@.])@([A-Za-z0-9][A-Za-z0-9_-]{0,63})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The agents an event goes to, each once, in order, or a chain; and the reason in words."""

    agents: tuple[str, ...]  #: empty where a chain is to be run
    reason: str
    chain: str | None = None  #: the chain's name, without `chain:`


def decide(event: Event, rules: Rules) -> Plan:
    """Resolve an event's targets: explicit ones first, else mentions in its text, else the default.

    Raises UnknownTarget for an explicit target nobody has (a mention of nobody is just text), and
    InvalidEvent when neither target, mention nor default says where to go, or a chain is not the
    only target.
    """
    if event.to:
        return _plan(event.to, rules, f"to: {', '.join(event.to)}")
    if rules.mentions:
        named = tuple(
            GROUP_MARK + name
            for name in dict.fromkeys(_MENTION.findall(event.text))
            if rules.members(GROUP_MARK + name) is not None
        )
        if named:
            return _plan(named, rules, f"mentions: {', '.join(named)}")
    if rules.default:
        return _plan(rules.default, rules, "routes.default")
    raise InvalidEvent("The event names no target and the fleet has no default route: set `to`.")


def _plan(targets: tuple[str, ...], rules: Rules, reason: str) -> Plan:
    reach = rules.targets.resolve(targets)
    return Plan(agents=reach.agents, chain=reach.chain, reason=reason)
