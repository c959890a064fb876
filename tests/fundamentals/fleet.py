"""A whole fleet in the words of the documentation: send, wait, kill, and see what happened."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fleet.ledger import operations
from fleet.store import keys
from tests.fixtures import fleet as rig
from tests.fixtures.processes import gone, wait_until
from tests.fundamentals.agents import HARD_LIMIT_MARGIN_S, TABLES

#: The patience of every wait: a machine may be several times as slow as an idle one.
PATIENCE_S = 90.0
LEASE_S = 4.0
#: Of the pool, where there is one.
PROCESSES = 3


@dataclass(frozen=True)
class Dispatch:
    """One event for one agent, as the ledger has it."""

    state: str
    answer: str
    attempts: int
    error: str
    error_kind: str


class Fleet:
    """Real workers on a real Valkey, in a folder of their own.

    An agent's worker is started when the agent is first sent an event.
    """

    def __init__(self, processes: rig.Fleet) -> None:
        self._rig = processes
        self._workers: dict[str, list[rig.Process]] = {}
        self.agents: set[str] = set()  #: that were sent an event
        self.settings = processes.settings
        self.url = processes.server.url
        self.folder = processes.folder
        #: True where all agents are in one pool.
        self.pooled = bool(processes.settings.pools)

    # Events.

    def send(self, agent: str, text: str = "hello", **fields: Any) -> str:
        """Send an event to one agent; the id of its dispatch."""
        if self._unit(agent) not in self._workers:
            self.start_worker(agent)
        return self.queue(agent, text, **fields)

    def queue(self, agent: str, text: str = "hello", **fields: Any) -> str:
        """Send an event to an agent, with or without a worker."""
        self.agents.add(agent)
        return self._rig.send(agent, text, **fields)

    def wait(self, dispatch_id: str, state: str = "completed") -> Dispatch:
        """Return once the dispatch is in that state."""
        wait_until(lambda: self.dispatch(dispatch_id).state == state, PATIENCE_S)
        return self.dispatch(dispatch_id)

    def wait_started(self, dispatch_id: str, times: int = 1) -> int:
        """Return once its turn has begun for that many times; the pid that runs the turn."""
        return self._rig.wait_started(dispatch_id, times, PATIENCE_S)

    def let_go(self) -> None:
        """Let the turns go on that wait."""
        self._rig.open_gate("go")

    def mend(self) -> None:
        """Mend what makes the agent `fragile` fail."""
        self._rig.open_gate("mended")

    def cancel(self, dispatch_id: str, *, now: bool = False) -> None:
        """Cancel a dispatch as `fleet queue cancel` does."""
        operations.cancel(self._rig.books.ledger, self.settings, dispatch_id, "enough", now=now)

    def replay(self, dispatch_id: str) -> None:
        """Replay a dead letter as `fleet dlq replay` does."""
        operations.replay(self._rig.books.ledger, self.settings, dispatch_id)

    # Processes.

    def start_worker(self, agent: str) -> rig.Process:
        """Start one more worker of an agent: the first one works, the next ones stand by."""
        mine = self._workers.setdefault(self._unit(agent), [])
        mine.append(self._rig.worker(agent, "-E", "-n", f"{agent}{len(mine)}@%h"))
        return mine[-1]

    def start_workers(self, agent: str, count: int) -> None:
        """Start an agent's workers one after the other, each ready or standing by."""
        for number in range(count):
            stands_by = number and not self.pooled
            self.start_worker(agent).wait_said("standing by" if stands_by else " ready.")

    def start_beat(self) -> None:
        """Start what looks for due retries and passed deadlines: beat, and the shared worker."""
        self._rig.shared()
        self._rig.start("beat", str(rig.CELERY), "-A", "fleet", "beat", "--pidfile=")

    def start_flower(self, port: int) -> None:
        """Start Flower as `fleet up` does."""
        argv = ("flower", "--address=127.0.0.1", f"--port={port}", "--read-only=True")
        self._rig.start("flower", sys.executable, "-m", "celery", "-A", "fleet", *argv)

    def worker(self, agent: str) -> rig.Process:
        """The worker that holds the agent's lease; of a pool, that of its last turn."""

        def holding() -> list[rig.Process]:
            pid = self._holder(agent)
            return [worker for worker in self._workers[self._unit(agent)] if worker.pid == pid]

        wait_until(lambda: bool(holding()), PATIENCE_S)
        return holding()[0]

    def _unit(self, agent: str) -> str:
        return self.settings.queue(agent)

    def _holder(self, agent: str) -> int:
        """The pid of the worker that runs the agent's turns."""
        client: Any = self._rig.books.store.client
        if not self.pooled:
            held = client.hget(keys.lease(agent), "holder")
        else:
            turns = self._rig.diary("start")
            held = turns and client.hget(keys.dispatch(turns[-1]["dispatch_id"]), "holder")
        return int(str(held or ":0").rpartition(":")[2])

    def kill_worker(self, agent: str) -> None:
        """`kill -9` of the worker that runs the agent's turns."""
        self.worker(agent).kill()

    def kill_turn(self, dispatch_id: str) -> None:
        """`kill -9` of the process that runs the turn; its worker lives."""
        os.kill(self.wait_started(dispatch_id), signal.SIGKILL)

    def kill_everything(self) -> None:
        """`kill -9` of every process, Valkey too."""
        self._rig.server.kill()
        for process in self._rig.processes:
            process.kill()
        self._workers.clear()

    def start_again(self, *agents: str) -> None:
        """Start Valkey and a worker of each agent after the end of everything."""
        self._rig.server.start()
        for agent in agents:
            self.start_worker(agent)

    @contextmanager
    def stopped(self, *pids: int) -> Iterator[None]:
        """Stop processes as a hung machine does; inside, they do nothing at all."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                if not gone(pid):
                    os.kill(pid, signal.SIGCONT)

    # What happened.

    def dispatch(self, dispatch_id: str) -> Dispatch:
        """The dispatch as the ledger has it now."""
        record = self._rig.books.record(dispatch_id)
        answer: Any = self._rig.books.store.client.get(keys.outcome(dispatch_id))
        return Dispatch(
            record.get("state", ""),
            str(answer or ""),
            int(record.get("attempt", 0)),
            record.get("error", ""),
            record.get("error_kind", ""),
        )

    def outcomes(self, dispatch_id: str) -> list[str]:
        """Each outcome of the dispatch that anybody could read on the bus."""
        return self._rig.books.ends(dispatch_id)

    def turns(self) -> list[str]:
        """The dispatches of all turns that began, in their order."""
        return [entry["dispatch_id"] for entry in self._rig.diary("start")]

    def turn_of(self, dispatch_id: str, what: str = "") -> list[str]:
        """The notes of a dispatch's turns, or those that begin with a word."""
        return [entry["what"] for entry in self._rig.diary(what, dispatch_id)]

    def ran_by(self) -> set[int]:
        """The processes that ran turns."""
        return {entry["pid"] for entry in self._rig.diary("start")}

    def never_two_at_once(self, *ids: str) -> bool:
        """True when each turn of these dispatches, or of all, ended before the next one began."""
        notes = [n for n in self._rig.diary() if not ids or n["dispatch_id"] in ids]
        moves = [n["what"] for n in notes if n["what"] in ("start", "end")]
        return all(one != two for one, two in pairwise(moves))

    def program(self) -> int:
        """The pid of the program that an agent runs."""
        path = self.folder / "program.pid"
        wait_until(lambda: path.exists() and path.read_text() != "", PATIENCE_S)
        return int(path.read_text())

    def journal(self, dispatch_id: str) -> list[str]:
        """The numbers of the steps that are finished and kept."""
        return list(self._rig.books.ledger.steps(dispatch_id))

    def wakeups(self, agent: str) -> list[str]:
        """The Celery messages that wait for an agent's worker, or for its pool's.

        A pool that never had a worker is not known to the store: they are the agent's until then.
        """
        client: Any = self._rig.books.store.client
        queues = {keys.queue(agent), self._unit(agent)}
        return [message for queue in queues for message in client.lrange(queue, 0, -1)]

    def lose_wakeups(self, agent: str) -> None:
        """Delete those messages."""
        self._rig.books.store.client.delete(keys.queue(agent), self._unit(agent))

    def bus(self) -> str:
        """Everything on the bus, as text."""
        return json.dumps([[entry.type, entry.fields] for entry in self._rig.books.bus()])

    def logs(self) -> str:
        """Everything that the processes printed."""
        return "".join(process.said() for process in self._rig.processes)


@contextmanager
def running(folder: Path, *, pooled: bool = False, **options: Any) -> Iterator[Fleet]:
    """A fleet with the agents of `agents.py`, and options of its table `[fleet]`.

    Each has a worker of its own, or all are in one pool. No process and no key is left of it.
    """
    pool: dict[str, Any] = {"pool": "all"} if pooled else {}
    tables = {
        name: {"python": f"tests.fundamentals.agents:{name}", **pool, **table}
        for name, table in TABLES.items()
    }
    pools = {"pools.all": {"processes": PROCESSES}} if pooled else {}
    limits: dict[str, Any] = {"lease_ttl_s": LEASE_S, "hard_limit_margin_s": HARD_LIMIT_MARGIN_S}
    with rig.fleet_of(
        folder, tables, sections=pools, durable=True, **limits, **options
    ) as processes:
        yield Fleet(processes)
