"""`fleet bench recovery`: the time from a SIGKILL until the interrupted dispatch runs again.

child    the process that runs the turn; its worker lives on
worker   the worker's own process; its host, or this benchmark for bare Celery, starts the next
host     `fleet host` with all its descendants, while another host of the same agents stands by; or
         all bare workers, started again at once
broker   the broker, started again at once, while an accepted event waits behind a running turn,
         which ends at the moment of the kill; the waiting event is the interrupted dispatch

The turn is killed 0.1 to 0.4 s after its start. Bare Celery has a visibility timeout of 5 s and
restores messages every second, the quickest documented settings. With these no turn may take longer
than 5 s: bare Celery would run it a second time beside the first. The fleet has its defaults, with
which a turn may take any time.
"""

import os
import signal
import time
from typing import Any

from fleet.bench import _turns
from fleet.bench._chaos_fleet import children
from fleet.bench._contenders import BARE, READY_S_MAX, AgentFleet, Bare, names
from fleet.bench._harness import (
    Figures,
    Lab,
    Option,
    lab,
    parse_options,
    percentile,
    progress,
    report,
    rounded,
)
from fleet.bench._proc import kill_family, parent
from fleet.errors import FleetError
from fleet.store.connection import retry_while_away
from fleet.system.process_group import kill_session

KINDS = ("child", "worker", "host", "broker")
OPTIONS: dict[str, Option] = {
    "seed": 1,
    "agents": 4,
    "kills": 10,  # of each kind
    "kinds": ",".join(KINDS),
    "durability": "everysec",
}

VISIBILITY_TIMEOUT_S = 5.0
OF = f"{BARE}; visibility timeout {VISIBILITY_TIMEOUT_S:g} s, restore interval 1 s"
#: The hosts of a fleet. `other` runs for the kind `host` only: otherwise it would replace a killed
#: worker before the worker's own host does.
HOSTS = ("host", "other")
#: A dispatch that is not back after this long counts as this long.
TIMEOUT_S = 60.0


def run(**given: Option) -> dict[str, Any]:
    """Run the benchmark."""
    options = parse_options(OPTIONS, given)
    kinds = [kind for kind in str(options["kinds"]).split(",") if kind in KINDS]
    agents = names(int(options["agents"]))
    with lab(options) as where:
        fleet = AgentFleet(where, agents, "hold")
        bare = Bare(where, agents, "hold", visibility_timeout_s=VISIBILITY_TIMEOUT_S)
        try:
            for side in (fleet, bare):
                side.start()
                side.await_ready()
            figures = [
                {kind: _Kills(where, side, kind) for kind in kinds} for side in (fleet, bare)
            ]
            for kind in kinds:
                for _ in range(int(options["kills"])):
                    for of_side in figures:
                        of_side[kind].kill_once()
                if kind == "host":
                    _back_to_one(fleet)
            ours, theirs = (
                {kind: kills.figures() for kind, kills in of_side.items()} for of_side in figures
            )
            return report("recovery", where, options, ours, theirs, OF)
        finally:
            bare.stop()
            fleet.stop()


class _Kills:
    """One kind of kill of one contender."""

    _next = 0

    def __init__(self, where: Lab, side: AgentFleet | Bare, kind: str) -> None:
        self._lab = where
        self._side = side
        self._kind = kind
        self._agent = side.agents[0]
        self._took_s: list[float] = []

    def figures(self) -> Figures:
        """The figures for the report."""
        return {
            "p50_s": rounded(percentile(self._took_s, 0.5)),
            "p99_s": rounded(percentile(self._took_s, 0.99)),
            "n": len(self._took_s),
        }

    def kill_once(self) -> None:
        """Kill once in mid-turn, and wait until the interrupted dispatch runs again."""
        if self._kind == "host" and isinstance(self._side, AgentFleet):
            self._await_standby(self._side)
        self._await_idle()
        number = self._send("")
        pid = self._lab.await_lines({number})[number].pid
        awaited = self._send("") if self._kind == "broker" else number
        time.sleep(self._lab.random.uniform(0.1, 0.4))
        killed_ns = time.monotonic_ns()
        if self._kind == "broker":
            self._kill_broker(number)
        else:
            self._kill(pid)
        self._took_s.append(self._until_again(awaited, killed_ns))
        if self._kind == "broker":
            _turns.release(awaited)
        progress(f"{self._kind} {self._side.name}: {self._took_s[-1]:.3f} s")

    def _kill(self, child: int) -> None:
        side, agent = self._side, self._agent
        if self._kind == "child":
            os.kill(child, signal.SIGKILL)
        elif isinstance(side, Bare):
            self._replace(side, [agent] if self._kind == "worker" else side.agents)
        elif self._kind == "worker":
            os.kill(parent(child), signal.SIGKILL)
        else:
            self._end_host(side, parent(parent(child)))

    def _replace(self, side: Bare, agents: list[str]) -> None:
        """Kill workers and their descendants, and start new workers, as a supervisor does."""
        for agent in agents:
            os.kill(side.processes.running[agent].pid, signal.SIGKILL)
        for agent in agents:
            kill_session(side.processes.running[agent].pid)
            side.processes.running[agent].wait()
        side.start(agents)

    def _end_host(self, side: AgentFleet, pid: int) -> None:
        [name] = [n for n, process in side.processes.running.items() if process.pid == pid]
        kill_family(pid)
        side.processes.running.pop(name).wait()

    def _await_standby(self, side: AgentFleet) -> None:
        """Return when two hosts run, each with a worker for each agent."""
        for name in HOSTS:
            if name not in side.processes.running:
                side.start(name)
        until = time.monotonic() + READY_S_MAX
        hosts = [side.processes.running[name].pid for name in HOSTS]
        while any(_workers(host) < len(side.agents) for host in hosts):
            if time.monotonic() > until:
                raise FleetError("The second host did not get ready.")
            time.sleep(0.05)

    def _kill_broker(self, running: str) -> None:
        pid = self._lab.broker.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        _turns.release(running)
        while self._lab.broker.alive():
            time.sleep(0.001)
        self._lab.broker.start()

    def _until_again(self, number: str, killed_ns: int) -> float:
        until = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            for line in self._lab.lines():
                if line.number == number and line.at_ns > killed_ns:
                    return (line.at_ns - killed_ns) / 1e9
            time.sleep(0.001)
        progress(f"{self._kind} {self._side.name}: not within {TIMEOUT_S:g} s")
        return TIMEOUT_S

    def _await_idle(self) -> None:
        """Return when the worker has taken all events sent before."""
        number = self._send("-")
        self._lab.await_lines({number})

    def _send(self, sign: str) -> str:
        _Kills._next += 1
        number = f"{sign}{_Kills._next}"
        retry_while_away(
            lambda: self._side.send(self._agent, f"{number} of recovery"), TIMEOUT_S, 0.1
        )
        return number


def _back_to_one(fleet: AgentFleet) -> None:
    for name in [*fleet.processes.running]:
        kill_family(fleet.processes.running[name].pid)
        fleet.processes.running.pop(name).wait()
    fleet.start()
    fleet.await_ready()


def _workers(host: int) -> int:
    """The number of workers that have forked their pool: they hold a lease, or stand by."""
    return sum(bool(children(pid)) for pid in children(host))
