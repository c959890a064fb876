"""The names of targets, and the agents that they reach: agent, `@group`, `all`, `chain:NAME`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from routing.errors import InvalidEvent, InvalidRoute, UnknownTarget

ALL_HANDS = "all"
GROUP_MARK = "@"
CHAIN_MARK = "chain:"

_GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


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
                    f"There is no agent, group or chain {target[:64]!r} in this fleet."
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
            raise InvalidRoute(f"{key} names {member!r}, which is not an agent.")
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
