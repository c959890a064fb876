"""`fleet bench route`: routing decisions per second by one process, with a thousand rules.

Half of the rules name one type of event, half a family of types (`com.example.f7.*`). Nine events
in ten are of a type that a rule names; the tenth falls to the default. A decision is complete:
targets and mentions are checked before the rules, and the plan holds agents and reason.

Celery's counterpart is `task_routes`: the types become names of tasks, and the rules a map of them
to one queue. It tries patterns one by one. Neither uses a broker.
"""

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

from celery.app.routes import MapRoute

from fleet.bench._contenders import names
from fleet.bench._harness import (
    Figures,
    Option,
    in_turns,
    lab,
    medians,
    parse_options,
    report,
    rounded,
)
from routing import Event, Rule, Rules, decide

OPTIONS: dict[str, Option] = {
    "seed": 1,
    "agents": 20,
    "rules": 1000,
    "rounds": 5,
    "seconds": 1.0,  # of each contender, in each round
    "durability": "everysec",  # of the broker that is not used
}

OF = "celery task_routes (celery.app.routes.MapRoute), the same rules over names of tasks"
#: Different events; as many as fit a processor's cache.
EVENTS = 500
#: Decisions between two readings of the clock.
CHUNK = 100


class Side:
    """A contender: the routing decisions of its events."""

    def __init__(self, name: str, decisions: Sequence[Callable[[], object]]) -> None:
        self.name = name
        self._decisions = decisions

    def measure(self, seconds: float) -> Figures:
        """Measure decisions for so long."""
        waiting, done = cycle(self._decisions), 0
        began = now = time.perf_counter()
        while now - began < seconds:
            for decision in islice(waiting, CHUNK):
                decision()
            done += CHUNK
            now = time.perf_counter()
        return {"decisions_per_s": rounded(done / (now - began))}


def run(**given: Option) -> dict[str, Any]:
    """Run the benchmark."""
    options = parse_options(OPTIONS, given)
    agents, count = names(int(options["agents"])), int(options["rules"])
    with lab(options) as where:
        types = _types(count, where.random)
        sides = [_fleet(agents, count, types), _celery(agents, count, types)]
        seconds = float(options["seconds"])
        for side in sides:
            side.measure(seconds / 10)
        ours, theirs = in_turns(int(options["rounds"]), sides, lambda side: side.measure(seconds))
        return report("route", where, options, medians(ours), medians(theirs), OF)


def _pattern(number: int) -> str:
    return f"com.example.f{number}.*" if number % 2 else f"com.example.e{number}"


def _types(count: int, chance: random.Random) -> list[str]:
    """The types of the events; each rule is equally likely."""
    found = []
    for place in range(EVENTS):
        rule = chance.randrange(count)
        event_type = _pattern(rule).replace("*", f"v{place}")
        found.append("com.example.other" if place % 10 == 0 else event_type)
    return found


def _fleet(agents: Sequence[str], count: int, types: Sequence[str]) -> Side:
    rules = Rules.checked(
        agents,
        groups={},
        default=[agents[0]],
        mentions=True,
        rules=[
            Rule.checked(
                name=f"r{number}",
                to=[agents[number % len(agents)]],
                patterns={"type": [_pattern(number)]},
                data={},
            )
            for number in range(count)
        ],
    )
    events = [
        Event.parse(
            {"type": event_type, "text": "x" * 200}, new_id=event_type, now="2026-01-01T00:00:00Z"
        )
        for event_type in types
    ]
    return Side("fleet", [partial(decide, event, rules) for event in events])


def _celery(agents: Sequence[str], count: int, types: Sequence[str]) -> Side:
    route = MapRoute(
        {_pattern(number): {"queue": agents[number % len(agents)]} for number in range(count)}
    )
    return Side("celery", [partial(route, name) for name in types])
