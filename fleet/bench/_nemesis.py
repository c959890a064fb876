"""The nemesis: carries out scheduled faults on real processes."""

import signal
import threading
import time
from collections import Counter

from fleet.bench._chaos_fleet import Target, children, kill
from fleet.bench._faults import Fault
from fleet.bench._harness import Lab
from fleet.bench._power import Power
from fleet.bench._wire import ChaosNetwork
from fleet.errors import BrokerUnavailable

#: How long to wait for any victim: a killed host comes back within seconds.
VICTIM_S_MAX = 60.0
_POLL_INTERVAL_S = 0.01


class Nemesis:
    """Executor of faults, one after another; a lasting fault ends by itself."""

    def __init__(self, where: Lab, target: Target, wire: ChaosNetwork, power: Power | None) -> None:
        self.done: Counter[str] = Counter()
        self.kills = 0
        self.bytes_cut = 0  #: by power losses: written, and not fsynced
        self._where = where
        self._target = target
        self._wire = wire
        self._power = power
        self._stopped: set[int] = set()
        self._timers: list[threading.Timer] = []
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
            self._stop((self._where.endpoint.pid,), fault.seconds)
        elif kind in ("host", "shared", "beat"):
            kill(self._target.pid(f"host{fault.host}" if kind == "host" else kind))
        elif not self._hit(fault):
            return
        self.done[kind] += 1
        self.kills += fault.kills

    def heal(self) -> None:
        """Resume every stopped process, and cancel the timers."""
        for timer in self._timers:
            timer.cancel()
        kill(*self._stopped, number=signal.SIGCONT)
        self._stopped.clear()

    def _hit(self, fault: Fault) -> bool:
        """Hit a worker, its child, or both; False without a victim."""
        worker = self._find(fault.agent)
        if worker is None:
            return False
        target = fault.kind.removeprefix("stop_")
        victims = [] if target == "worker" else children(worker)
        if target != "child":
            victims.append(worker)
        return kill(*victims) if fault.kills else self._stop(tuple(victims), fault.seconds)

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

    def _stop(self, pids: tuple[int, ...], seconds: float) -> bool:
        hit = kill(*pids, number=signal.SIGSTOP)
        self._stopped |= {*pids}
        timer = threading.Timer(seconds, self._resume, (pids,))
        timer.daemon = True
        self._timers.append(timer)
        timer.start()
        return hit

    def _resume(self, pids: tuple[int, ...]) -> None:
        kill(*pids, number=signal.SIGCONT)
        self._stopped -= {*pids}

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
