"""`fleet bench footprint`: the cost of an idle agent, and the start-up time of a host.

Memory is the proportional set size (PSS) of every process of the host, the host itself included,
divided by the agents. A fleet is ready when every agent's lease is held, bare Celery when every
worker has reported that it is ready; the time counts from the start of the first process. CPU is
the idle use of all these processes, in percent of one core. The broker is not counted.

The fleet's agents are `llm` agents, with LiteLLM preloaded. The baseline is the lightest possible
Celery worker, which could not call a model. `--also` adds contenders: a fleet of `python` agents,
without LiteLLM, and Celery workers with it. A hundred of the latter need 22 GiB, so with many
agents use `--also python`, or `--also none`.
"""

import time
from pathlib import Path
from typing import Any

from fleet.bench._contenders import BARE, AgentFleet, Bare, names
from fleet.bench._harness import (
    Figures,
    Lab,
    Option,
    in_turns,
    lab,
    medians,
    parse_options,
    report,
    rounded,
)
from fleet.bench._proc import cpu_s, family
from fleet.errors import ConfigError, FleetError

OPTIONS: dict[str, Option] = {
    "seed": 1,
    "agents": 20,
    "rounds": 3,
    "seconds": 15,  # of idleness that CPU is measured over
    "also": "celery-litellm,python",
    "durability": "everysec",
}

#: The pause after ready, for the last work of the start-up.
SETTLE_S = 3.0


#: The first two are always measured, the others if `also` names them.
KINDS = {
    "fleet": "fleet",
    "celery": "celery",
    "celery-litellm": "celery with LiteLLM",
    "python": "fleet of python agents",
}


class _Kind:
    """A contender, started anew for each round."""

    def __init__(self, kind: str, where: Lab, agents: list[str]) -> None:
        self.name = KINDS[kind]
        self._lab = where
        self._agents = agents

    def start(self) -> AgentFleet | Bare:
        """Start the processes, without waiting until they are ready."""
        if self.name.startswith("fleet"):
            turn = "llm" if self.name == "fleet" else "noop"
            side: AgentFleet | Bare = AgentFleet(self._lab, self._agents, turn)
        else:
            side = Bare(self._lab, self._agents, "noop", litellm="LiteLLM" in self.name)
        side.start()
        return side


def run(**given: Option) -> dict[str, Any]:
    """Run the benchmark. Raises FleetError without /proc."""
    options = parse_options(OPTIONS, given)
    if not Path("/proc/self/smaps_rollup").exists():
        raise FleetError("footprint reads /proc/PID/smaps_rollup, which this system does not have.")
    agents = names(int(options["agents"]))
    also = _also(str(options["also"]))
    with lab(options) as where:
        kinds = [_Kind(name, where, agents) for name in ("fleet", "celery", *also)]
        rounds = in_turns(
            int(options["rounds"]), kinds, lambda kind: _round(kind, float(options["seconds"]))
        )
        # The number of agents is not measured, hence not a float.
        count = {"agents": len(agents)}
        ours, theirs, *others = ({**medians(found), **count} for found in rounds)
        found = report("footprint", where, options, ours, theirs, BARE)
        named = zip(also, others, strict=True)
        return {**found, "also": [{"of": KINDS[kind], **other} for kind, other in named]}


def _also(chosen: str) -> list[str]:
    """The additional contenders, in the given order. Raises ConfigError."""
    if chosen == "none":
        return []
    named = chosen.split(",")
    if unknown := set(named) - set(list(KINDS)[2:]):
        known = ", ".join(list(KINDS)[2:])
        raise ConfigError(f"--also: {min(unknown)!r} is none of {known}; none is an answer too.")
    return named


def _round(kind: _Kind, seconds: float) -> Figures:
    started = time.monotonic()
    side = kind.start()
    try:
        side.await_ready()
        ready_s = time.monotonic() - started
        time.sleep(SETTLE_S)
        roots = {process.pid for process in side.processes.running.values()}
        before, at = cpu_s(family(roots)), time.monotonic()
        time.sleep(seconds)
        used_s = cpu_s(family(roots)) - before
        cpu_pct = 100 * used_s / (time.monotonic() - at)
        pss_mib = sum(map(_pss_mib, family(roots)))
    finally:
        side.stop()
    return {
        "pss_mib_per_agent": rounded(pss_mib / len(side.agents)),
        "ready_s": rounded(ready_s),
        "agents": len(side.agents),
        "idle_cpu_pct": rounded(cpu_pct),
    }


def _pss_mib(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    [line] = [line for line in text.splitlines() if line.startswith("Pss:")]
    return int(line.split()[1]) / 1024
