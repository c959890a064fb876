"""`fleet bench endurance`: long turns, while connections are cut and the broker is killed.

Each agent runs one turn of `seconds`. A proxy in front of the broker closes every connection each
`cut_every_s`, in order or with a reset. `restarts` times the broker is killed, and comes back on
its data after `away_s`. Every second agent's turn is one model call over the whole time; the other
turns are calls of `call_s`, each a journalled step. Only the broker and its connections are
disturbed, so no turn has a reason to run twice.

`runs_max` is the most starts of any turn. The figures from `repeated_calls` on are the auditor's
(see `fleet.bench._auditor`) and must be 0. Bare Celery has one worker behind its own proxy, cut at
the same moments, and the visibility timeout of `recovery`: with the default a killed worker's turn
would wait for an hour. Afterwards it has `linger_s` without faults, in which it restarts turns that
it believes unfinished.
"""

import random
import time
from typing import Any

from fleet.bench._auditor import History, audit
from fleet.bench._chaos_fleet import Target
from fleet.bench._contenders import Bare, names
from fleet.bench._faults import Fault
from fleet.bench._harness import Figures, Option, lab, parse_options, progress, report, rounded
from fleet.bench._nemesis import Nemesis
from fleet.bench._wire import ChaosNetwork
from fleet.bench.recovery import OF, VISIBILITY_TIMEOUT_S

OPTIONS: dict[str, Option] = {
    "seed": 1,
    "agents": 4,
    "seconds": 60.0,
    "call_s": 1.0,
    "cut_every_s": 2.0,
    "restarts": 2,
    "away_s": 1.0,
    "lease_ttl_s": 5.0,
    "linger_s": 20.0,
    "durability": "always",
}

#: How many times its planned duration a turn may take: calls and commits wait for the broker.
SLACK = 2.0
_POLL_INTERVAL_S = 0.1
_PROGRESS_INTERVAL_S = 30.0


def run(**given: Option) -> dict[str, Any]:
    """Run the benchmark. Raises FleetError when a contender does not get ready."""
    options = parse_options(OPTIONS, given)
    with lab(options) as where, ChaosNetwork(where.endpoint.socket, 2) as wire:
        seconds = float(options["seconds"])
        target = Target(
            where,
            names(int(options["agents"])),
            ports=[wire.proxies[0].port],
            provider=wire.provider.port,
            ttl_s=float(options["lease_ttl_s"]),
            timeout_s=SLACK * seconds + 60,
        )
        bare = Bare(
            where,
            ["bare"],
            "stay",
            port=wire.proxies[1].port,
            visibility_timeout_s=VISIBILITY_TIMEOUT_S,
        )
        nemesis = Nemesis(where, target, wire, None)
        try:
            target.start()
            bare.start()
            bare.await_ready()
            accepted = _send(target, options)
            bare.send("bare", f"1 {seconds:g}")
            troubles = _trouble(nemesis, wire, target, options)
            history = target.history(frozenset(accepted), wire.provider.calls)
            ours = {**_figures(history), **troubles, "lease_ttls": rounded(_ttls(options))}
            theirs = {"runs_max": sum(line.number == "1" for line in where.lines())}
            return report("endurance", where, options, ours, theirs, OF)
        finally:
            nemesis.heal()
            bare.stop()
            target.stop()


def _send(target: Target, options: dict[str, Option]) -> set[str]:
    seconds, call_s = float(options["seconds"]), float(options["call_s"])
    accepted: set[str] = set()
    for place, agent in enumerate(target.agents):
        text = f"1 {seconds}" if place % 2 else f"{max(1, round(seconds / call_s))} {call_s}"
        answer = target.intake.accept({"to": agent, "text": text})
        accepted |= {dispatch_id for dispatch_id, _ in answer.dispatches}
    return accepted


def _trouble(
    nemesis: Nemesis, wire: ChaosNetwork, target: Target, options: dict[str, Option]
) -> Figures:
    """Cut and kill until every turn of the fleet has ended; then give bare Celery `linger_s`."""
    draw = random.Random(options["seed"])
    seconds, every_s = float(options["seconds"]), float(options["cut_every_s"])
    linger_s = float(options["linger_s"])
    restarts, restarted, cuts = int(options["restarts"]), 0, 0
    began = reported = time.monotonic()
    cut_at, ended_s = began + every_s, 0.0
    progress(f"{len(target.agents)} turns of {seconds:g} s")
    while (past_s := time.monotonic() - began) < SLACK * seconds + 60 + linger_s:
        if not ended_s and past_s > seconds and not target.unfinished():
            ended_s = past_s
        if ended_s and past_s > ended_s + linger_s:
            break
        if restarted < restarts and past_s > seconds * (restarted + 1) / (restarts + 1):
            restarted += 1
            away_s = float(options["away_s"])
            nemesis.do(Fault(at_s=past_s, kind="broker", agent="", host=0, seconds=away_s))
        if not ended_s and time.monotonic() > cut_at:
            cut_at, cuts = cut_at + every_s, cuts + 1
            for proxy in wire.proxies:
                wire.begin(draw.choice((proxy.cut, proxy.reset))()).result(10.0)
        if time.monotonic() - reported > _PROGRESS_INTERVAL_S:
            reported = time.monotonic()
            progress(f"{past_s:.0f} s: {cuts} cuts, {restarted} restarts of the broker")
        time.sleep(_POLL_INTERVAL_S)
    return {"cuts": cuts, "broker_restarts": restarted, "ended_s": rounded(ended_s)}


def _figures(history: History) -> Figures:
    result = audit(history)
    for violation in result.violations:
        progress(f"VIOLATION {violation}")
    runs = [
        sum(mark.kind == "start" and mark.dispatch_id == dispatch_id for mark in history.marks)
        for dispatch_id in history.accepted
    ]
    counted = ("repeated_calls", "lost", "doubled", "overlaps", "stale_writes")
    return {
        "runs_max": max(runs),
        "turns": len(runs),
        "completed": result.outcomes.get("completed", 0),
        "calls": len(history.calls),
        **{name: len(getattr(result, name)) for name in counted},
    }


def _ttls(options: dict[str, Option]) -> float:
    """The length of a turn in leases."""
    return float(options["seconds"]) / float(options["lease_ttl_s"])
