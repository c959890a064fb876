"""The target of a chaos run: real processes behind a proxy, restarted as by systemd.

Hosts with the agents' workers, beat and the worker of the shared queues reach the broker through
the proxy. The sender and the auditor's reader connect directly, so their view is undisturbed.
"""

import json
import os
import signal
import sys
import threading
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from fleet.bench import _chaos_turns
from fleet.bench._auditor import Call, History
from fleet.bench._contenders import POOL, Processes
from fleet.bench._harness import Lab
from fleet.config.settings import parse
from fleet.errors import FleetError
from fleet.intake.intake import Intake
from fleet.ledger import ValkeyLedger, bus
from fleet.store import Store, keys, open_store
from fleet.store.connection import reachable

READY_S_MAX = 120.0
#: Like `Restart=always` with a short `RestartSec`.
POLL_INTERVAL_S = 0.05
_CHUNK = 1000

_TOML = """\
[fleet]
broker_url = "{url}"
data_dir = "{folder}"
lease_ttl_s = {ttl_s}
drain_s = 5
retention = {{ max = 10000000 }}
[bus]
max_length = 10000000
max_age_s = 86400
"""
_AGENT = """\
[agents.{name}]
runner = "python"
python = "{turn}"
timeout_s = {timeout_s}
max_pending = 100000
retry = {{ attempts = 3, backoff_s = 0.2, min_age_s = 0 }}
"""
_QUIET = ("--without-mingle", "--without-gossip", "--heartbeat-interval", "20", "-l", "WARNING")


class Services:
    """Processes that are started again whenever they end."""

    def __init__(self, where: Lab, name: str) -> None:
        self.diary = where.folder / "diary.log"
        self.diary.touch()
        self.processes = Processes(where, name)
        self.log = where.folder / f"{name}.log"
        self.commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        self._stopping = threading.Event()
        self._restarter = threading.Thread(target=self._restart_ended, daemon=True)

    def start_all(self) -> None:
        """Start every command."""
        for name, (argv, env) in self.commands.items():
            self.processes.start(name, argv, env)

    def keep_running(self) -> None:
        """From now on start each command again when it ends."""
        self._restarter.start()

    def pid(self, name: str) -> int:
        """The process of a command."""
        return self.processes.running[name].pid

    def stop_restarting(self) -> None:
        """Let ended processes stay ended."""
        self._stopping.set()
        if self._restarter.is_alive():
            self._restarter.join()

    def stop(self) -> None:
        """Stop every process, suspended processes included."""
        self.stop_restarting()
        self.processes.stop()

    def _restart_ended(self) -> None:
        while not self._stopping.wait(POLL_INTERVAL_S):
            # A test restarts its own additional processes itself.
            for name, (argv, env) in self.commands.items():
                if self.processes.running[name].poll() is not None:
                    self.processes.start(name, argv, env)


class Target(Services):
    """Hosts, each with a worker for each agent, one beat, and one worker for the shared queues."""

    def __init__(
        self,
        where: Lab,
        agents: list[str],
        *,
        ports: list[int],
        provider: int,
        ttl_s: float,
        turn: str = "fleet.bench._chaos_turns:calls",
        timeout_s: float = 60.0,
        processes: int = 0,
    ) -> None:
        """A host for each of `ports`, its broker's port; beat uses the first.

        With `processes`, a pool of so many on each host runs the turns of all agents.
        """
        super().__init__(where, "target")
        self._processes = processes
        self.agents = agents
        self._where = where
        self._env = {
            _chaos_turns.DIARY: str(self.diary),
            _chaos_turns.PROVIDER: str(provider),
        }
        self._configs = [self._write(port, ttl_s, turn, timeout_s) for port in ports]
        settings = parse(tomllib.loads(self._configs[0].read_text()))
        self.store = open_store(where.endpoint.url, bus_max_length=settings.bus.max_length)
        self.intake = Intake(ValkeyLedger(self.store, settings), settings.rules())
        self.commands = self._all_commands()

    def _write(self, port: int, ttl_s: float, turn: str, timeout_s: float) -> Path:
        path = self._where.folder / f"fleet-{port}.toml"
        url = self._where.through(port)
        text = _TOML.format(url=url, folder=self._where.folder, ttl_s=ttl_s)
        if self._processes:
            text += f"[pools.{POOL}]\nprocesses = {self._processes}\n"
        for agent in self.agents:
            text += _AGENT.format(name=agent, turn=turn, timeout_s=timeout_s)
            if self._processes:
                text += f'pool = "{POOL}"\n'
        path.write_text(text)
        return path

    def _all_commands(self) -> dict[str, tuple[list[str], dict[str, str]]]:
        python = [sys.executable, "-m"]
        celery = [*python, "fleet.supervisor.celery_child", "-A", "fleet"]
        shared = ["worker", "-Q", "intake,maintenance,delivery", "-c", "1", "-n", "shared@%h"]
        schedule = f"--schedule={self._where.folder / 'beat'}"
        commands = {"shared": [*celery, *shared, *_QUIET]}
        commands["beat"] = [*celery, "beat", "--pidfile=", schedule, "-l", "WARNING"]
        first = {**self._env, "FLEET_CONFIG": str(self._configs[0])}
        made = {name: (argv, first) for name, argv in commands.items()}
        for number, config in enumerate(self._configs):
            made[f"host{number}"] = (
                [*python, "fleet", "host"],
                {**self._env, "FLEET_CONFIG": str(config)},
            )
        return made

    def start(self) -> None:
        """Start all processes; return when every agent's lease is held and beat ticks."""
        self.start_all()
        pool = [keys.pool(POOL)] if self._processes else []
        leases = pool or [keys.lease(agent) for agent in self.agents]
        until = time.monotonic() + READY_S_MAX
        client = self.store.client
        while client.exists(*leases) < len(leases) or not client.exists(keys.BEAT):
            if time.monotonic() > until:
                line = self.processes.last_line()
                raise FleetError(f"The fleet to torment did not get ready: {line}")
            time.sleep(0.05)
        self.keep_running()

    def worker(self, agent: str) -> int | None:
        """The main process of the worker that holds an agent; None without a living worker.

        In a pool, of the worker that runs a turn of the agent now.
        """
        with reachable():
            client: Any = self.store.client
            if self._processes:
                running = client.srandmember(keys.running(agent))
                holder = running and client.hget(keys.dispatch(running), "holder")
            else:
                holder = client.hget(keys.lease(agent), "holder")
        pid = int(str(holder).rpartition(":")[2]) if holder else 0
        return pid if pid and children(pid) else None

    def unfinished(self) -> int:
        """Dispatches without an outcome."""
        return unfinished(self.store)

    def history(self, accepted: frozenset[str], calls: tuple[Call, ...]) -> History:
        """The records of the run."""
        return read_history(self.store, self.diary, accepted, calls)

    def stop(self) -> None:
        """Stop every process, and close the store."""
        super().stop()
        self.store.close()


def unfinished(store: Store) -> int:
    """Dispatches without an outcome. Raises BrokerUnavailable."""
    with reachable():
        counts: Any = store.client.hgetall(keys.COUNTS)
    live = ("queued", "active", "announcing", "retrying", "parked")
    return sum(int(n) for place, n in counts.items() if place.partition("|")[2] in live)


def read_history(
    store: Store, diary: Path, accepted: frozenset[str], calls: tuple[Call, ...]
) -> History:
    """Read the auditor's records from the store and the diary."""
    entries, after = [], "0-0"
    while chunk := bus.read(store, after, count=_CHUNK):
        entries += chunk
        after = chunk[-1].id
    ids: Any = store.client.zrange(keys.INDEX, 0, -1)
    journals = _hashes(store, [keys.journal(i) for i in ids], ids)
    return History(
        accepted=accepted,
        bus=tuple(entries),
        records=_hashes(store, [keys.dispatch(i) for i in ids], ids),
        journal={dispatch_id: _attempts(steps) for dispatch_id, steps in journals.items()},
        marks=tuple(_chaos_turns.read_diary(diary)),
        calls=calls,
    )


def _hashes(store: Store, names: list[str], ids: list[str]) -> dict[str, dict[str, str]]:
    found: list[dict[str, str]] = []
    for place in range(0, len(names), _CHUNK):
        pipe = store.client.pipeline(transaction=False)
        for name in names[place : place + _CHUNK]:
            pipe.hgetall(name)
        found += pipe.execute()
    return dict(zip(ids, found, strict=True))


def children(pid: int) -> list[int]:
    """The direct children of a process; empty when it is gone."""
    with suppress(OSError):
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kill(*pids: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal to each process; True when one of them was alive."""
    hit = False
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            hit = True
    return hit


def _attempts(steps: dict[str, str]) -> dict[str, int]:
    return {number: int(json.loads(entry)["attempt"]) for number, entry in steps.items()}
