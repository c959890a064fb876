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
    early: bool = False  #: an outage that does not wait until the fleet has got over the last one

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


#: Kinds of outages of the embedded broker of `fleet up`, and their weights.
OUTAGES = {
    "stopped": 3,  # SIGTERM, and back after a while
    "killed": 4,
    "restarted": 2,  # killed, and back at once
    "hung": 3,  # SIGSTOP, then SIGCONT
    "full": 3,  # no memory for writes; reads are answered
    "no_disk": 3,  # the append-only file cannot grow, so the server dies in the middle of a write
}
#: Victims of SIGKILL around an outage, and their weights.
VICTIMS = {
    "api": 6,
    "send": 6,  # `fleet send` in the middle of its work
    "child": 5,
    "worker": 4,
    "host": 2,
    "shared": 2,
    "beat": 1,
    "offline": 6,  # the process of offline execution
    "offline_child": 6,  # a process below it, which runs a turn
    "up": 2,  # the supervisor alone
    "everything": 3,  # every process of the fleet, the broker and the senders' commands
}
#: Seconds of an outage: some end before offline execution begins, others last past it.
SHORT_S, LONG_S, LONG_SHARE = (0.5, 3.5), (6.0, 10.0), 0.4
#: The share of outages that come while the fleet still gets over the last one.
EARLY_SHARE = 0.2
#: Seconds between the end of an outage and the next one.
GAP_S = (0.5, 4.0)
#: Kills around an outage: from its start on and until this long after its end.
KILLS_EACH = (0, 2)
KILL_AFTER_S = 1.5


def outage_schedule(seed: int, outages: int, agents: Sequence[str]) -> list[Fault]:
    """Draw exactly `outages` outages, with kills around each. Deterministic by seed.

    Every kind of outage comes at least once if there are as many outages as kinds.
    """
    draw = random.Random(seed)
    kinds = _kinds(draw, OUTAGES, outages)
    draw.shuffle(kinds)
    faults, at_s = [], 0.0
    for kind in kinds:
        at_s += draw.uniform(*GAP_S)
        victims = draw.choices(list(VICTIMS), list(VICTIMS.values()), k=draw.randint(*KILLS_EACH))
        long = draw.random() < LONG_SHARE or any(one.startswith("offline") for one in victims)
        length_s = 0.0 if kind == "restarted" else draw.uniform(*(LONG_S if long else SHORT_S))
        found = [(0.0, kind), *((draw.uniform(0.0, length_s + KILL_AFTER_S), v) for v in victims)]
        faults += [
            Fault(
                at_s=at_s + after_s,
                kind=what,
                agent=draw.choice(agents),
                host=0,
                seconds=length_s,
                early=draw.random() < EARLY_SHARE,
            )
            for after_s, what in found
        ]
        at_s += length_s
    return sorted(faults, key=lambda fault: fault.at_s)
