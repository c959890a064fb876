"""The route table, read from the configuration and checked whole."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from routing.errors import InvalidEvent, InvalidRoute, UnknownTarget
from routing.targets import Reach, Targets, check_once


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Where an event goes. Build it with `Rules.checked`, which refuses a wrong one."""

    targets: Targets
    default: tuple[str, ...] = ()
    mentions: bool = True

    @classmethod
    def checked(
        cls,
        agents: Iterable[str],
        groups: Mapping[str, Sequence[str]],
        default: Sequence[str],
        mentions: bool,
        chains: Iterable[str] = (),
    ) -> "Rules":
        """A table in which every name resolves.

        Raises InvalidRoute naming the key, for a group or a default that reaches nobody.
        """
        targets = Targets.checked(agents, groups, chains)
        check_targets("routes.default", default, targets)
        return cls(targets=targets, default=tuple(default), mentions=mentions)

    def members(self, target: str) -> tuple[str, ...] | None:
        """The agents behind one target, or None when no agent or group has that name."""
        return self.targets.members(target)


def check_targets(key: str, names: Sequence[str], targets: Targets) -> Reach:
    """Whom the configured `names` reach. Raises InvalidRoute naming the key."""
    check_once(key, names)
    for name in names:
        try:
            targets.resolve((name,))
        except UnknownTarget:
            raise InvalidRoute(
                f"{key} names {name!r}, which is no agent, @group or chain:NAME."
            ) from None
    try:
        return targets.resolve(names)
    except InvalidEvent:
        raise InvalidRoute(f"{key} names a chain, which must be its only target.") from None
