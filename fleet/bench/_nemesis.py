"""The nemesis: carries out scheduled faults on real processes."""

import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence, Sized
from typing import Protocol

import redis

from fleet.bench._chaos_fleet import Target, children, kill
from fleet.bench._faults import OUTAGES, Fault
from fleet.bench._harness import Lab, progress
from fleet.bench._outage_fleet import UpFleet
from fleet.bench._power import Power
from fleet.bench._proc import kill_family
from fleet.bench._wire import ChaosNetwork
from fleet.broker.embedded import Endpoint
from fleet.errors import BrokerUnavailable

#: How long to wait for any victim: a killed host comes back within seconds.
VICTIM_S_MAX = 60.0
_POLL_INTERVAL_S = 0.01
_PROGRESS_INTERVAL_S = 10.0
#: A part of the command line of each victim.
VICTIM_WORDS = {
    "api": "-m fleet api",
    "send": "-m fleet send",
    "host": "-m fleet host",
    "shared": "-Q intake",
    "beat": "fleet beat",
}
OFFLINE_WORD = "offline"
#: How long a kill of offline execution waits for its victim.
OFFLINE_S_MAX = 6.0
#: The faults of the run with their times, in the lab's folder.
FAULTS_LOG = "faults.log"
#: Room that a full disk still has: less than one event's writes.
DISK_LEFT_BYTES = 200


class Executor:
    """The part of every nemesis that counts faults, and ends those that last."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.kills = 0
        self._stopped: set[int] = set()
        self._timers: list[threading.Timer] = []

    def do(self, fault: Fault) -> None:
        """Carry out a fault."""
        raise NotImplementedError

    def heal(self) -> None:
        """Resume every stopped process, and cancel the timers."""
        for timer in self._timers:
            timer.cancel()
        kill(*self._stopped, number=signal.SIGCONT)
        self._stopped.clear()

    def stop_process(self, pids: tuple[int, ...], seconds: float) -> bool:
        """Stop processes for some time; True when one of them was alive."""
        hit = kill(*pids, number=signal.SIGSTOP)
        self._stopped |= {*pids}
        self.later(seconds, lambda: self._resume(pids))
        return hit

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        """Do something after some time, unless healed before."""
        timer = threading.Timer(seconds, work)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _resume(self, pids: tuple[int, ...]) -> None:
        kill(*pids, number=signal.SIGCONT)
        self._stopped -= {*pids}


class Senders(Protocol):
    """The load of a run."""

    @property
    def accepted(self) -> Sized:
        """The accepted dispatches."""
        ...

    def check(self) -> None:
        """Raise FleetError when a sender has failed."""
        ...


def carry_out(plan: Sequence[Fault], seconds: float, nemesis: Executor, senders: Senders) -> None:
    """Carry out the plan with its pauses: a fault that takes long delays all later faults."""
    began = reported = time.monotonic()
    planned_s = 0.0
    for fault in (*plan, None):
        at_s = fault.at_s if fault else seconds
        until, planned_s = time.monotonic() + at_s - planned_s, at_s
        while (wait_s := until - time.monotonic()) > 0:
            time.sleep(min(wait_s, 0.5))
            senders.check()
        if fault is not None:
            nemesis.do(fault)
        if time.monotonic() - reported > _PROGRESS_INTERVAL_S:
            reported = time.monotonic()
            progress(
                f"{reported - began:.0f} s: {nemesis.kills} kills, "
                f"{sum(nemesis.done.values())} faults, "
                f"{len(senders.accepted)} dispatches accepted"
            )


class Nemesis(Executor):
    """Executor of faults, one after another; a lasting fault ends by itself."""

    def __init__(self, where: Lab, target: Target, wire: ChaosNetwork, power: Power | None) -> None:
        super().__init__()
        self.bytes_cut = 0  #: by power losses: written, and not fsynced
        self._where = where
        self._target = target
        self._wire = wire
        self._power = power
        if power is not None:
            power.watch(where)

    def do(self, fault: Fault) -> None:
        """Carry out a fault, on another agent if the drawn agent has no worker now."""
        kind = fault.kind
        if kind in ("cut", "reset"):
            proxy = self._wire.proxies[fault.host]
            self._wire.begin(proxy.cut() if kind == "cut" else proxy.reset()).result(10.0)
        elif kind in ("mute", "hold"):
            proxy = self._wire.proxies[fault.host]
            self._wire.begin(
                proxy.mute(fault.seconds) if kind == "mute" else proxy.hold(fault.seconds)
            )
        elif kind in ("broker", "power"):
            self._kill_broker(fault.seconds, power=kind == "power")
        elif kind == "stop_broker":
            self.stop_process((self._where.endpoint.pid,), fault.seconds)
        elif kind in ("host", "shared", "beat"):
            kill(self._target.pid(f"host{fault.host}" if kind == "host" else kind))
        elif not self._hit(fault):
            return
        self.done[kind] += 1
        self.kills += fault.kills

    def _hit(self, fault: Fault) -> bool:
        """Hit a worker, its child, or both; False without a victim."""
        worker = self._find(fault.agent)
        if worker is None:
            return False
        target = fault.kind.removeprefix("stop_")
        victims = [] if target == "worker" else children(worker)
        if target == "child" and victims:
            # Of a pool's, one.
            victims = [victims[self._target.agents.index(fault.agent) % len(victims)]]
        if target != "child":
            victims.append(worker)
        return kill(*victims) if fault.kills else self.stop_process(tuple(victims), fault.seconds)

    def _find(self, agent: str) -> int | None:
        """The living worker of an agent, or of the next agent that has one."""
        place = self._target.agents.index(agent)
        agents = [*self._target.agents[place:], *self._target.agents[:place]]
        until = time.monotonic() + VICTIM_S_MAX
        while time.monotonic() < until:
            for name in agents:
                try:
                    if worker := self._target.worker(name):
                        return worker
                except BrokerUnavailable:
                    break
            time.sleep(_POLL_INTERVAL_S)
        return None

    def _kill_broker(self, away_s: float, *, power: bool) -> None:
        """Kill the broker, with a power loss if `power`; then start it on the same data."""
        broker = self._where.broker
        kill(self._where.endpoint.pid)
        while broker.alive():
            time.sleep(_POLL_INTERVAL_S)
        if self._power is not None and power:
            self.bytes_cut += self._power.lose()
        time.sleep(away_s)
        self._where.endpoint = broker.start()
        if self._power is not None:
            self._power.watch(self._where)


class OutageNemesis(Executor):
    """Outages of the broker of `fleet up`, and kills of the fleet's processes around them."""

    def __init__(self, fleet: UpFleet) -> None:
        super().__init__()
        self.missed: Counter[str] = Counter()  #: kills that found no victim
        self.outages: list[tuple[int, int, str]] = []  #: start and end by CLOCK_MONOTONIC, kind
        self._fleet = fleet
        self._full: Endpoint | None = None

    def do(self, fault: Fault) -> None:
        """Carry out a fault."""
        if fault.kind in OUTAGES:
            self._begin(fault)
        elif self._kill(fault):
            self.kills += 1
        else:
            self.missed[fault.kind] += 1
            return
        self.done[fault.kind] += 1
        with (self._fleet.folder / FAULTS_LOG).open("a") as log:
            log.write(f"{time.monotonic_ns()}\t{fault.kind}\t{fault.seconds:.1f}\n")

    def heal(self) -> None:
        """End the outage that lasts."""
        super().heal()
        self._fleet.release()
        self._make_room()

    def _begin(self, fault: Fault) -> None:
        if not fault.early:
            self._fleet.await_ready()
        endpoint = self._await_broker()
        now_ns = time.monotonic_ns()
        self.outages.append((now_ns, now_ns + int(fault.seconds * 1e9), fault.kind))
        if fault.kind == "hung":
            self.stop_process((endpoint.pid,), fault.seconds)
        elif fault.kind == "full":
            self._full = endpoint
            self._set_memory(endpoint, 1)
            self.later(fault.seconds, self._make_room)
        else:
            if fault.seconds:
                self._fleet.hold()
                self.later(fault.seconds, self._fleet.release)
            if fault.kind == "no_disk":
                self._fill_disk(endpoint)
            else:
                number = signal.SIGTERM if fault.kind == "stopped" else signal.SIGKILL
                kill(endpoint.pid, number=number)

    def _await_broker(self) -> Endpoint:
        until = time.monotonic() + VICTIM_S_MAX
        while (endpoint := self._fleet.endpoint()) is None:
            if time.monotonic() > until:
                raise BrokerUnavailable(
                    f"The broker did not come back within {VICTIM_S_MAX:g} s after an outage: "
                    f"the log is {self._fleet.log}."
                )
            time.sleep(_POLL_INTERVAL_S)
        return endpoint

    def _fill_disk(self, endpoint: Endpoint) -> None:
        """Let the append-only file grow by a few bytes only; the server dies with the next ones."""
        files = (self._fleet.folder / "broker" / "appendonlydir").glob("*.incr.aof")
        size = max((file.stat().st_size for file in files), default=0)
        try:
            limit = (size + DISK_LEFT_BYTES, resource.RLIM_INFINITY)
            resource.prlimit(endpoint.pid, resource.RLIMIT_FSIZE, limit)
        except ProcessLookupError:
            return  # the last kill took it

    def _make_room(self) -> None:
        """Give the server its memory back, if it still lives."""
        if self._full is not None:
            self._set_memory(self._full, 0)
            self._full = None

    def _set_memory(self, endpoint: Endpoint, size: int) -> None:
        until = time.monotonic() + VICTIM_S_MAX
        while self._fleet.endpoint() == endpoint and time.monotonic() < until:
            try:
                with redis.Redis.from_url(endpoint.url, socket_timeout=5.0) as client:
                    client.config_set("maxmemory", size)
                return
            except redis.RedisError:
                time.sleep(_POLL_INTERVAL_S)

    def _kill(self, fault: Fault) -> bool:
        """Kill the victim of a fault; False without one."""
        if fault.kind == "everything":
            others = self._fleet.all_processes()
            kill_family(self._fleet.pid("up"))
            kill(*others)
            return True
        if fault.kind == "up":
            return kill(self._fleet.pid("up"))
        until = time.monotonic() + (OFFLINE_S_MAX if OFFLINE_WORD in fault.kind else 1.0)
        while not (victims := self._victims(fault.kind)) and time.monotonic() < until:
            time.sleep(_POLL_INTERVAL_S * 10)
        # The drawn agent stands for a number: processes do not tell whose they are.
        chosen = self._fleet.agents.index(fault.agent)
        return kill(victims[chosen % len(victims)]) if victims else False

    def _victims(self, kind: str) -> list[int]:
        workers = [pid for host in self._find(VICTIM_WORDS["host"]) for pid in children(host)]
        offline = self._find(OFFLINE_WORD)
        if kind in ("child", "worker"):
            busy = [pid for pid in workers if children(pid)]
            return busy if kind == "worker" else [child for pid in busy for child in children(pid)]
        if kind in ("offline", "offline_child"):
            return offline if kind == "offline" else [c for pid in offline for c in children(pid)]
        return self._find(VICTIM_WORDS[kind])

    def _find(self, words: str) -> list[int]:
        return self._fleet.processes_of(words)
