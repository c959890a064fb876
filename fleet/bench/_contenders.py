"""The two contenders: a fleet under its host, and bare Celery workers, on one broker."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from fleet.bench import _bare
from fleet.bench._harness import Lab
from fleet.config.settings import parse
from fleet.errors import FleetError
from fleet.intake.intake import Intake, Submission
from fleet.ledger import ValkeyLedger
from fleet.store import keys, open_store
from fleet.store.address import kombu_url
from fleet.system.lifeline import LIFELINE_FD
from fleet.system.process_group import kill_session

#: The options of `fleet up` for a worker, as a bare worker would be started.
BARE = "celery worker: acks_late, prefetch 1, reject_on_worker_lost, prefork -c 1 per queue, "
BARE += "without gossip, mingle and heartbeat"

READY_S_MAX = 300.0
STOP_S_MAX = 15.0


#: The one pool, where there is one.
POOL = "all"


class Contender(Protocol):
    """A system under test: it takes texts for agents, and runs them."""

    name: str

    def send(self, agent: str, text: str) -> None:
        """Publish one text, as an application would."""
        ...

    def send_many(self, agent: str, texts: Sequence[str]) -> None:
        """Publish several texts, the fastest documented way."""
        ...


class Processes:
    """Started processes, each in its own session; all of them end with this process."""

    def __init__(self, where: Lab, name: str) -> None:
        self._log_path = where.folder / f"{name}.log"
        self._output = self._log_path.open("ab")
        self._lifeline, self._lifeline_end = os.pipe()
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[str], env: dict[str, str]) -> None:
        """Start `argv` under `name`, instead of the last process of this name."""
        self.running[name] = subprocess.Popen(
            argv,
            env={**os.environ, **env, LIFELINE_FD: str(self._lifeline)},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
            pass_fds=[self._lifeline],
        )

    def last_line(self) -> str:
        """The last line printed by any of the processes."""
        lines = self._log_path.read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "nothing was printed")

    def stop(self) -> None:
        """Stop all processes: SIGTERM, then SIGKILL."""
        for process in self.running.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + STOP_S_MAX
        for process in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            kill_session(process.pid)
            process.wait(STOP_S_MAX)
        self.running.clear()
        os.close(self._lifeline_end)
        os.close(self._lifeline)
        self._output.close()


class AgentFleet:
    """A `fleet host`; its agents run `turn` of `_turns`, or for `llm` have a model to call."""

    name = "fleet"

    def __init__(self, where: Lab, agents: Iterable[str], turn: str, pool: int = 0) -> None:
        """`pool`: processes of one pool for all agents; 0 for a worker each."""
        self.agents = list(agents)
        self._lab = where
        self._ready = [keys.pool(POOL)] if pool else [keys.lease(agent) for agent in self.agents]
        self._config = where.folder / "fleet.toml"
        self._config.write_text(_toml(where, self.agents, turn, pool))
        self.settings = parse(tomllib.loads(self._config.read_text()))
        self.store = open_store(where.endpoint.url, bus_max_length=self.settings.bus.max_length)
        self._intake = Intake(ValkeyLedger(self.store, self.settings), self.settings.rules())
        self.processes = Processes(where, "host")

    def start(self, name: str = "host") -> None:
        """Start a host; `await_ready` waits for the workers of the first host."""
        argv = [sys.executable, "-m", "fleet", "host"]
        self.processes.start(name, argv, {"FLEET_CONFIG": str(self._config)})

    def await_ready(self, timeout_s: float = READY_S_MAX) -> None:
        """Return when every agent's lease is held, or the pool has its worker."""
        leases = self._ready
        until = time.monotonic() + timeout_s
        while self.store.client.exists(*leases) < len(leases):
            if time.monotonic() > until or self.processes.running["host"].poll() is not None:
                line = self.processes.last_line()
                raise FleetError(f"The host did not get ready: {line}")
            time.sleep(0.01)

    def send(self, agent: str, text: str) -> None:
        """Accept one event."""
        self._intake.accept({"to": agent, "text": text})

    def send_many(self, agent: str, texts: Sequence[str]) -> None:
        """Accept a batch."""
        self._intake.accept_batch([Submission({"to": agent, "text": text}) for text in texts])

    def stop(self) -> None:
        """Stop the host and close the connections."""
        self.processes.stop()
        self.store.close()


class Bare:
    """A bare `celery worker` for each agent's queue."""

    name = "celery"

    def __init__(
        self,
        where: Lab,
        agents: Iterable[str],
        turn: str,
        *,
        visibility_timeout_s: float = 3600.0,
        litellm: bool = False,
        port: int | None = None,
    ) -> None:
        """`port` is the broker's port for the workers, if not its own."""
        self.agents = list(agents)
        self._lab = where
        self._turn = turn
        url = kombu_url(where.endpoint.url).replace("virtual_host=0", "virtual_host=1")
        seen = where.through(port, 1) if port else url
        self._env = {_bare.URL: seen, _bare.TIMEOUT_S: str(visibility_timeout_s)}
        if litellm:
            self._env[_bare.LITELLM] = "1"
        self.app = _bare.configured(url, visibility_timeout_s)
        self.processes = Processes(where, "celery")

    def start(self, agents: Iterable[str] | None = None) -> None:
        """Start the workers; `await_ready` waits for them."""
        for agent in self.agents if agents is None else agents:
            argv = [sys.executable, "-m", "celery", "-A", "fleet.bench._bare", "worker"]
            argv += ["-Q", f"bare.{agent}", "-n", f"{agent}@%h", "-c", "1", "-P", "prefork"]
            argv += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
            self.processes.start(agent, argv, self._env)

    def await_ready(self, timeout_s: float = READY_S_MAX) -> None:
        """Return when every worker has reported that it consumes."""
        self._lab.await_lines({f"ready:{agent}" for agent in self.agents}, timeout_s)

    def send(self, agent: str, text: str) -> None:
        """Publish one task."""
        self.app.send_task(self._turn, (text,), queue=f"bare.{agent}")

    def send_many(self, agent: str, texts: Sequence[str]) -> None:
        """Publish a batch through one producer, in kombu's own batches."""
        queue = f"bare.{agent}"
        with self.app.producer_or_acquire() as producer, producer.batch(max_size=len(texts)):
            for text in texts:
                self.app.send_task(self._turn, (text,), queue=queue, producer=producer, retry=False)

    def stop(self) -> None:
        """Stop the workers and close the connections."""
        self.processes.stop()
        self.app.close()


def names(count: int) -> list[str]:
    """`a1`, `a2` ..."""
    return [f"a{number}" for number in range(1, count + 1)]


def _toml(where: Lab, agents: Iterable[str], turn: str, pool: int) -> str:
    head = f'[fleet]\nbroker_url = "{where.endpoint.url}"\ndata_dir = "{where.folder}"\n'
    one = f'runner = "python"\npython = "fleet.bench._turns:{turn}"\n'
    if turn == "llm":
        one = 'runner = "llm"\nmodel = "openai/never-called"\n'
    if pool:
        head += f"[pools.{POOL}]\nprocesses = {pool}\n"
        one += f'pool = "{POOL}"\n'
    return head + "".join(f"[agents.{agent}]\n{one}max_pending = 10000000\n" for agent in agents)
