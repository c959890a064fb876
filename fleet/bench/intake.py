"""`fleet bench intake`: events accepted per second by one process, singly and in batches.

An accepted event has its payload, its record, its bus entries and its doorbell in the broker when
the call returns; a bare task has its message there. Nobody consumes, and each round starts with an
empty broker. Singly, bare Celery calls `send_task`; in batches it keeps one producer and uses
kombu's own batches. A text is 200 characters long.
"""

import time
from typing import Any

from fleet.bench._contenders import Bare, Fleet, names
from fleet.bench._harness import (
    Figures,
    Lab,
    Option,
    in_turns,
    lab,
    medians,
    progress,
    report,
    rounded,
    settle,
)

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
    """Measure; see the module."""
    options = settle(OPTIONS, given)
    agents = names(int(options["agents"]))
    with lab(options) as where:
        fleet, bare = Fleet(where, agents, "noop"), Bare(where, agents, "noop")
        try:
            for side in (fleet, bare):
                _round(where, side, options | {"events": int(options["batch"])})
            progress("warmed up")
            ours, theirs = in_turns(
                int(options["rounds"]), [fleet, bare], lambda side: _round(where, side, options)
            )
            return report("intake", where, options, medians(ours), medians(theirs), OF)
        finally:
            bare.stop()
            fleet.stop()


def _round(where: Lab, side: Fleet | Bare, options: dict[str, Option]) -> Figures:
    events, size = int(options["events"]), int(options["batch"])
    figures = {}
    for kind in ("single", "batch"):
        with where.client() as client:
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
