"""A fleet of real processes behind proxies, as `fleet bench chaos` has one, for one test file."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleet.bench._auditor import AuditReport, audit
from fleet.bench._chaos_fleet import Target, children
from fleet.bench._chaos_turns import read_diary
from fleet.bench._harness import Lab
from fleet.bench._proxy import Proxy
from fleet.bench._wire import ChaosNetwork
from fleet.ledger.bus import BusEvent
from fleet.store import keys
from tests.fixtures.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
#: A turn begins within milliseconds; a host needs seconds of one core before its workers do.
START_S = 60.0
END_S = 60.0


class Arena:
    """The fleet, its broker, its proxies and its provider."""

    def __init__(self, where: Lab, wire: ChaosNetwork, target: Target, ttl_s: float) -> None:
        self.where, self.wire, self.target, self.ttl_s = where, wire, target, ttl_s
        self._accepted: set[str] = set()
        self._sent = 0
        self._seen = "0-0"

    def send(self, text: str, to: str = "a1", **fields: Any) -> str:
        """An event for one agent; the id of its dispatch."""
        self._sent += 1
        event = {"id": f"t{self._sent}", "source": "test", "to": to, "text": text, **fields}
        ((dispatch_id, _),) = self.target.intake.accept(event).dispatches
        self._accepted.add(dispatch_id)
        return dispatch_id

    def note(self, *dispatch_ids: str) -> None:
        """Somebody else was told that these are accepted."""
        self._accepted.update(dispatch_ids)

    def started(self, dispatch_id: str, attempt: int = 1, step: int = 0) -> int:
        """Wait until an attempt runs, and has kept that many steps; the process that runs it."""

        def found() -> list[int]:
            return [
                mark.pid
                for mark in read_diary(self.target.diary)
                if mark.dispatch_id == dispatch_id and mark.attempt == attempt
                if (mark.kind == "start" if not step else mark.step == str(step))
            ]

        wait_until(lambda: bool(found()), START_S)
        return found()[0]

    def outcome(self, dispatch_id: str, timeout_s: float = END_S) -> dict[str, str]:
        """Wait for the end of a dispatch; its record."""
        key = keys.dispatch(dispatch_id)
        client: Any = self.target.store.client
        wait_until(lambda: client.hexists(key, "ended_ms"), timeout_s)
        return dict(client.hgetall(key))

    def result(self) -> AuditReport:
        """The auditor's, over everything since the beginning."""
        return audit(self.target.history(frozenset(self._accepted), self.wire.provider.calls))

    def worker(self, agent: str = "a1") -> int:
        """The main process of the worker that holds the agent now."""
        wait_until(lambda: self.target.worker(agent) is not None, START_S)
        return int(self.target.worker(agent) or 0)

    def both(self, agent: str = "a1") -> list[int]:
        """The worker and the child that runs its turns."""
        worker = self.worker(agent)
        return [*children(worker), worker]

    def host_of(self, worker: int) -> int:
        """The number of the host that a worker belongs to."""
        for number in range(len(self.wire.proxies)):
            if worker in children(self.target.pid(f"host{number}")):
                return number
        raise AssertionError(f"{worker} belongs to no host")

    def proxy_of(self, worker: int) -> Proxy:
        """The link between a worker and the broker."""
        return self.wire.proxies[self.host_of(worker)]

    def bus(self, *types: str) -> list[BusEvent]:
        """Entries of the bus, of these types."""
        entries = self.target.history(frozenset(), ()).bus
        return [entry for entry in entries if entry.type in types]

    def all_stand_by(self) -> None:
        """Wait until every host has a worker for each agent: one that holds, the others waiting."""
        hosts = [self.target.pid(f"host{number}") for number in range(len(self.wire.proxies))]
        agents = len(self.target.agents)

        def ready() -> bool:
            workers = [pid for host in hosts for pid in children(host)]
            # A worker that has forked its pool waits for the lease; the guardian is no worker.
            return sum(bool(children(pid)) for pid in workers) >= agents * len(hosts)

        wait_until(ready, START_S)


@contextmanager
def arena_of(
    folder: Path,
    *,
    agents: int = 1,
    hosts: int = 1,
    ttl_s: float = 2.0,
    turn: str = "tests.chaos.turns:calls",
) -> Iterator[Arena]:
    """A fleet that is ready; nothing of it is left afterwards."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    where = Lab(folder, "always", random.Random(1))
    try:
        with ChaosNetwork(where.endpoint.socket, hosts) as wire:
            names = [f"a{number}" for number in range(1, agents + 1)]
            ports = [proxy.port for proxy in wire.proxies]
            target = Target(
                where, names, ports=ports, provider=wire.provider.port, ttl_s=ttl_s, turn=turn
            )
            try:
                target.start()
                yield Arena(where, wire, target, ttl_s)
            finally:
                target.stop()
    finally:
        where.broker.stop()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def pause(seconds: float) -> None:
    """Time that has to pass, because something must not happen in it."""
    time.sleep(seconds)
