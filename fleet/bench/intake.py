"""`fleet bench intake`: events accepted per second by one process, singly and in batches.

When the call returns, an accepted event has its payload, its record, its bus entries and its
wake-up message in the broker; a bare task has its message. Nothing is consumed, and each round
starts with an empty broker. Singly, bare Celery calls `send_task`; in batches it uses one producer
and kombu's own batches. A text is 200 characters long.
"""

import time
from typing import Any

from fleet.bench._contenders import AgentFleet, Bare, names
from fleet.bench._harness import Bench, Figures, Option, bench, progress, rounded

OPTIONS: dict[str, Option] = {
    "seed": 1,
    "agents": 20,
    "rounds": 7,
    "events": 2000,  # of each kind, in each round
    "batch": 100,
    "durability": "everysec",
}

OF = "celery send_task; in batches one producer and kombu's producer.batch()"
PADDING = "x" * 200


def run(**given: Option) -> dict[str, Any]:
    """Run the benchmark."""
    with bench("intake", OF, OPTIONS, given) as here:
        agents = names(here.number("agents"))
        fleet, bare = AgentFleet(here.where, agents, "noop"), Bare(here.where, agents, "noop")
        try:
            for side in (fleet, bare):
                _round(here, side, here.number("batch"))
            progress("warmed up")
            return here.compare(
                [fleet, bare], lambda side: _round(here, side, here.number("events"))
            )
        finally:
            bare.stop()
            fleet.stop()


def _round(here: Bench, side: AgentFleet | Bare, events: int) -> Figures:
    size = here.number("batch")
    figures = {}
    for kind in ("single", "batch"):
        with here.where.client() as client:
            client.flushall()
        started = time.perf_counter()
        if kind == "single":
            for number in range(events):
                side.send(side.agents[number % len(side.agents)], PADDING)
        else:
            for number in range(0, events, size):
                agent = side.agents[number // size % len(side.agents)]
                side.send_many(agent, [PADDING] * min(size, events - number))
        figures[f"{kind}_per_s"] = rounded(events / (time.perf_counter() - started))
    return figures
