"""The faults of a chaos run, their times and victims: drawn from a seed before the run begins."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

#: Kinds that count as a kill, and their weights in percent.
KILLS = {
    "child": 40,  # the process that runs the turn
    "worker": 28,  # its parent, which renews the lease
    "both": 16,
    "host": 1,  # the warm parent of all workers of a machine: all its turns at once
    "shared": 5,  # the worker of intake, maintenance and delivery
    "beat": 5,
    "broker": 4,
    "power": 0,  # the broker, together with all that it has not fsynced; as many as asked for
}
#: Kinds besides kills.
TROUBLES = {
    "stop_both": 20,  # SIGSTOP past the lease, then SIGCONT
    "stop_worker": 15,  # the same, while the child runs on
    "stop_child": 5,
    "cut": 20,  # every connection of one host to the broker ends
    "reset": 20,
    "mute": 10,  # the broker hears, its answers are lost
    "hold": 10,  # silence in both directions
    "stop_broker": 3,
}
#: Troubles for each kill.
TROUBLE_SHARE = 0.3
#: Duration of a stopped process, a silent wire and a stopped broker, in times to live.
STOPPED_TTLS = (1.2, 2.5)
SILENT_TTLS = (0.1, 1.5)
BROKER_STOPPED_TTLS = (0.2, 1.2)
#: Seconds until a killed broker is started again.
BROKER_AWAY_S = (0.0, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault."""

    at_s: float  #: from the start of the run, at the earliest
    kind: str
    agent: str
    host: int
    seconds: float  #: its duration, where it has one

    @property
    def kills(self) -> bool:
        """True when it counts as a kill."""
        return self.kind in KILLS


def schedule(
    seed: int,
    kills: int,
    seconds: float,
    agents: Sequence[str],
    *,
    hosts: int,
    ttl_s: float,
    power_losses: int = 0,
) -> list[Fault]:
    """Draw exactly `kills` kills, and some other troubles, at random times. Deterministic by seed.

    Every kind comes at least once if there are as many kills as kinds.
    """
    draw = random.Random(seed)
    power = ["power"] * min(power_losses, kills)
    troubles = round(kills * TROUBLE_SHARE)
    kinds = [*power, *_kinds(draw, KILLS, kills - len(power)), *_kinds(draw, TROUBLES, troubles)]
    draw.shuffle(kinds)
    lasts = {
        **dict.fromkeys(("stop_both", "stop_worker", "stop_child"), STOPPED_TTLS),
        **dict.fromkeys(("mute", "hold"), SILENT_TTLS),
        "stop_broker": BROKER_STOPPED_TTLS,
        **dict.fromkeys(("broker", "power"), tuple(bound / ttl_s for bound in BROKER_AWAY_S)),
    }
    times = sorted(draw.uniform(0, seconds) for _ in kinds)
    return [
        Fault(
            at_s=at_s,
            kind=kind,
            agent=draw.choice(agents),
            host=draw.randrange(hosts),
            seconds=ttl_s * draw.uniform(*lasts.get(kind, (0.0, 0.0))),
        )
        for at_s, kind in zip(times, kinds, strict=True)
    ]


def _kinds(draw: random.Random, weights: dict[str, int], count: int) -> list[str]:
    usual = [kind for kind, weight in weights.items() if weight]
    once = draw.sample(usual, min(count, len(usual)))
    more = draw.choices(list(weights), list(weights.values()), k=count - len(once))
    return [*once, *more]
