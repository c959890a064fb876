"""The decision: an event and a route table in, a plan out. Same input, same plan."""

import re
from dataclasses import dataclass

from routing.errors import InvalidEvent, UnknownTarget
from routing.event import Event
from routing.rules import GROUP_MARK, Rules

#: A mention starts a word: an e-mail address (`ann@gem.example`) mentions nobody.
_MENTION = re.compile(r"(?<![\w@.])@([A-Za-z0-9][A-Za-z0-9_-]{0,63})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The agents an event goes to, each once, in order, and the reason in words."""

    agents: tuple[str, ...]
    reason: str


def decide(event: Event, rules: Rules) -> Plan:
    """Resolve an event's targets: explicit ones first, else mentions in its text, else the default.

    Raises UnknownTarget for an explicit target nobody has (a mention of nobody is just text), and
    InvalidEvent when neither target, mention nor default says where to go.
    """
    if event.to:
        return Plan(agents=_resolve(event.to, rules), reason=f"to: {', '.join(event.to)}")
    if rules.mentions:
        named = [
            name for name in dict.fromkeys(_MENTION.findall(event.text)) if _known(name, rules)
        ]
        if named:
            targets = tuple(GROUP_MARK + name for name in named)
            return Plan(agents=_resolve(targets, rules), reason=f"mentions: {', '.join(targets)}")
    if rules.default:
        return Plan(agents=_resolve(rules.default, rules), reason="routes.default")
    raise InvalidEvent("The event names no target and the fleet has no default route: set `to`.")


def _known(name: str, rules: Rules) -> bool:
    return rules.members(GROUP_MARK + name) is not None


def _resolve(targets: tuple[str, ...], rules: Rules) -> tuple[str, ...]:
    agents: dict[str, None] = {}
    for target in targets:
        members = rules.members(target)
        if members is None:
            raise UnknownTarget(f"There is no agent or group {target[:64]!r} in this fleet.")
        agents.update(dict.fromkeys(members))
    return tuple(agents)
