"""`fleet bench dispatch`: from an event to the start of its turn, and events through the fleet.

Idle: one event at a time to one agent, each a short random pause after the start of the last turn.
The time runs from the call that accepts (or publishes) to the first statement of the turn.
Throughput: one process sends all events one by one as fast as it can, while the workers run them.
The rate counts from the first call to the start of the last turn. A text is 200 characters long.
Both sides write one line per turn to one file.
"""

import time
from typing import Any

from fleet.bench._contenders import BARE, AgentFleet, Bare, Contender, names
from fleet.bench._harness import (
    Figures,
    Lab,
    Option,
    in_turns,
    lab,
    medians,
    parse_options,
    percentile,
    progress,
    report,
    rounded,
)

OPTIONS: dict[str, Option] = {
    "seed": 1,
    "agents": 20,
    "pool": 0,  # processes of a pool that runs all agents of the fleet; 0: a worker each
    "rounds": 5,
    "idle": 200,  # events in each idle round
    "events": 2000,  # events in each round of throughput
    "durability": "everysec",
}

PADDING = "x" * 190
#: The random pause between two idle events, which prevents any synchrony.
RETRY_DELAY_S = (0.005, 0.02)


def run(**given: Option) -> dict[str, Any]:
    """Run the benchmark. Raises FleetError when turns do not start."""
    options = parse_options(OPTIONS, given)
    agents = names(int(options["agents"]))
    with lab(options) as where:
        fleet = AgentFleet(where, agents, "noop", int(options["pool"]))
        bare = Bare(where, agents, "noop")
        sides: list[Contender] = [fleet, bare]
        try:
            progress(f"starting {len(agents)} workers each")
            fleet.start()
            fleet.await_ready()
            bare.start()
            bare.await_ready()
            found = _Rounds(where, agents, options).all(sides)
            ours, theirs = found
            return report("dispatch", where, options, ours, theirs, BARE)
        finally:
            bare.stop()
            fleet.stop()


class _Rounds:
    def __init__(self, where: Lab, agents: list[str], options: dict[str, Option]) -> None:
        self._lab = where
        self._agents = agents
        self._options = options
        self._next = 0
        self._idle_ms: dict[str, list[float]] = {}

    def all(self, sides: list[Contender]) -> list[Figures]:
        """The figures of each side."""
        for side in sides:
            # The first event of each worker pays for connections and imports.
            self._drain(side, self._agents, 5 * len(self._agents))
            self._idle_ms[side.name] = []
        rounds = int(self._options["rounds"])
        idle = in_turns(rounds, sides, self._idle)
        through = in_turns(rounds, sides, self._through)
        return [
            {
                "idle_p50_ms": medians(idle[place])["idle_p50_ms"],
                # Over all rounds: one round has too few events for a percentile.
                "idle_p99_ms": rounded(percentile(self._idle_ms[side.name], 0.99)),
                **medians(through[place]),
            }
            for place, side in enumerate(sides)
        ]

    def _idle(self, side: Contender) -> Figures:
        waits = []
        for _ in range(int(self._options["idle"])):
            time.sleep(self._lab.random.uniform(*RETRY_DELAY_S))
            number, text = self._text()
            called_ns = time.monotonic_ns()
            side.send(self._agents[0], text)
            line = self._lab.await_lines({number})[number]
            waits.append((line.at_ns - called_ns) / 1e6)
        self._idle_ms[side.name] += waits
        return {"idle_p50_ms": rounded(percentile(waits, 0.5))}

    def _through(self, side: Contender) -> Figures:
        events = int(self._options["events"])
        return {
            "events_per_s_1": rounded(self._drain(side, self._agents[:1], events)),
            "events_per_s_20": rounded(self._drain(side, self._agents, events)),
        }

    def _drain(self, side: Contender, agents: list[str], events: int) -> float:
        """Events per second, sent to `agents` in rotation."""
        texts = [self._text() for _ in range(events)]
        called_ns = time.monotonic_ns()
        for place, (_, text) in enumerate(texts):
            side.send(agents[place % len(agents)], text)
        lines = self._lab.await_lines({number for number, _ in texts})
        last_ns = max(line.at_ns for line in lines.values())
        return events / ((last_ns - called_ns) / 1e9)

    def _text(self) -> tuple[str, str]:
        self._next += 1
        return str(self._next), f"{self._next} {PADDING}"
