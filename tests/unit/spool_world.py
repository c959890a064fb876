"""Simulated processes of one machine around a spool, a ledger they reach or not, and what they
promised.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.config.settings import Settings, parse
from fleet.errors import BrokerUnavailable, IdempotencyConflict
from fleet.intake.spool import folder as spool_folder
from fleet.intake.spool import offline
from fleet.intake.spool.acceptors import SpoolAwareAcceptor, SpoolingAcceptor
from fleet.intake.spool.drainer import Drainer
from fleet.intake.spool.folder import SpoolFull
from fleet.intake.spool.runs import SpoolLedger
from fleet.intake.spool.spool import Spool
from fleet.ledger import Claim, Ending, Failure, FailureStage
from fleet.ledger.protocol import Accepted, Answer, ImportedEvent
from fleet.store import keys
from fleet.system import clock
from fleet.system.agent_lock import TurnLock
from routing import Event, Plan, decide
from tests.fixtures.disk import Disk, Life

AGENTS = ("a", "b")
STEPS = ("1", "2")
LEFT = Failure(stage=FailureStage.LLM, reason="later", retryable=True, defer=True)


@dataclass
class Dispatch:
    """A dispatch in the ledger."""

    agent: str
    attempt: int = 0
    run: str = ""
    steps: dict[str, str] = field(default_factory=dict)
    ended: bool = False


class FakeLedger:
    """The ledger's promises in memory; `mode` says how it is reached."""

    def __init__(self) -> None:
        self.mode = "up"
        self.contents: dict[str, str] = {}  #: digest -> content, in the order of acceptance
        self.dispatches: dict[str, Dispatch] = {}
        self.late: list[str] = []
        self.store = SimpleNamespace(run=lambda _call: self._reach(lambda: None))
        self.settings: Settings | None = None

    def accept_many(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        """As `accept.lua`."""
        answers: list[Answer] = self._reach(lambda: [self._accept(*one) for one in batch])
        return answers

    def import_spooled(self, batch: Sequence[ImportedEvent]) -> int:
        """As `backfill.lua`, and `ValkeyLedger.import_spooled`."""

        def do() -> tuple[int, IdempotencyConflict | None]:
            late, conflict = 0, None
            for one in batch:
                answer = self._accept(one.event, one.plan)
                if isinstance(answer, IdempotencyConflict):
                    conflict = answer
                else:
                    late += self._report(one)
            return late, conflict

        late, conflict = self._reach(do)
        if conflict:
            raise conflict
        return int(late)

    def _reach(self, do: Callable[[], Any]) -> Any:
        if self.mode == "before":
            raise BrokerUnavailable("away")
        found = do()
        if self.mode == "after":
            raise BrokerUnavailable("the answer is lost")
        return found

    def _accept(self, event: Event, plan: Plan) -> Answer:
        digest = keys.event_digest(event.key)
        pairs = tuple((keys.dispatch_id(event.key, agent), agent) for agent in plan.agents)
        if digest in self.contents:
            if self.contents[digest] != event.content:
                return IdempotencyConflict()
            return Accepted(event_id=event.id, dispatches=pairs, duplicate=True)
        self.contents[digest] = event.content
        for dispatch_id, agent in pairs:
            self.dispatches[dispatch_id] = Dispatch(agent)
        return Accepted(event_id=event.id, dispatches=pairs, duplicate=False)

    def _report(self, one: ImportedEvent) -> int:
        late = 0
        for report in one.reports:
            dispatch = self.dispatches[report.dispatch_id]
            if dispatch.ended or dispatch.attempt:
                if dispatch.run != report.run:
                    late += 1
                    self.late.append(report.dispatch_id)
                continue
            dispatch.attempt, dispatch.run = report.attempt, report.run
            dispatch.steps |= report.steps
            dispatch.ended = report.ending is not None
        return late


class Broker:
    """A breaker that the test opens and closes."""

    closed = True

    def begin_probe(self, **_more: Any) -> None:
        """No probe is ever due."""


class Process(Life):
    """A process that uses the spool."""

    def __init__(self, name: str, world: "World") -> None:
        super().__init__(name)
        self.spool = Spool(world.settings)
        self.runs = SpoolLedger(self.spool, world.settings, lambda: world.breaker.closed)
        ledger: Any = world.ledger
        breaker: Any = world.breaker
        self.acceptor: SpoolingAcceptor | SpoolAwareAcceptor = (
            SpoolAwareAcceptor(ledger, self.spool, timeout_s=-1)
            if name == "send"
            else SpoolingAcceptor(lambda: ledger, breaker, self.spool)
        )
        self.drainer = Drainer(
            breaker, self.spool, ledger=lambda: ledger, store=lambda: ledger.store
        )


@dataclass
class OfflineTurn:
    """A turn that runs now."""

    process: Life
    claim: Claim
    journal: dict[str, str]
    runs: SpoolLedger | None  #: None in a worker


class World:
    """The machine, and what its users were told."""

    def __init__(self) -> None:
        self.tmp = tempfile.TemporaryDirectory(prefix="spool-")
        self.data = Path(self.tmp.name).resolve()
        agents = {name: {"runner": "python", "python": "n:n"} for name in AGENTS}
        fleet = {"data_dir": str(self.data)}
        self.settings = parse({"fleet": fleet, "agents": agents, "spool": {"max_events": 30}})
        self.breaker, self.ledger, self.disk = Broker(), FakeLedger(), Disk(self.data)
        self.processes: dict[str, Process] = {}
        self.turns: dict[str, OfflineTurn] = {}
        self.offline: Process | None = None
        self.locks: dict[str, TurnLock] = {}
        self.fences = self.sends = 0
        self.answered: dict[str, tuple[str, int]] = {}  #: digest -> content, when
        self.also, self.refused = set[tuple[str, str]](), set[str]()
        self.attempted: dict[str, int] = {}
        self.ids: dict[str, str] = {}  #: dispatch -> digest
        self.journaled: dict[str, set[str]] = {}
        self.completed: dict[str, str] = {}
        self.unsure = set[str]()  #: digests whose submission a power loss may have undone
        self.seconds, self.wall, self.boot = 1000.0, 1.7e9, 1
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(spool_folder, "LOCK_TIMEOUT_S", -1.0)
        self.patch.setattr(clock, "boot_id", lambda: f"boot {self.boot}")
        self.patch.setattr(clock, "boottime", lambda: self.seconds)
        self.patch.setattr(clock, "time", SimpleNamespace(time=lambda: self.wall))

    def close(self) -> None:
        """Leave nothing behind."""
        self.disk.arm(0, "")
        self.kill_all()
        self.disk.restore()
        self.patch.undo()
        self.tmp.cleanup()

    def process(self, name: str) -> Process:
        """The living process of that name; one that starts prepares the spool."""
        found = self.processes.get(name)
        if found is None or found.dead:
            found = self.processes[name] = Process(name, self)
            if name != "send":
                with self.disk.running(found), suppress(SpoolFull):
                    found.spool.prepare()
        return found

    def kill_all(self) -> None:
        """Kill every process."""
        for name in list(self.processes):
            self.kill(name)
        self.end_offline()
        for agent in list(self.turns):
            self.end_turn(agent)

    def kill(self, name: str) -> None:
        """Kill a process between two calls."""
        if name in self.processes:
            self.disk.end(self.processes.pop(name))

    def send(self, name: str, events: list[Event]) -> None:
        """Send events, and remember what was answered."""
        process = self.process(name)
        if process.dead:
            return
        batch = [(event, decide(event, self.settings.rules())) for event in events]
        self.sends += 1
        ours = {keys.event_digest(event.key) for event, _ in batch}
        new = set() if self.breaker.closed else ours - self.attempted.keys()
        self.refused -= ours
        for event, plan in batch:
            digest = keys.event_digest(event.key)
            self.attempted.setdefault(digest, self.sends)
            self.ids |= {keys.dispatch_id(event.key, agent): digest for agent in plan.agents}
        answers: list[Answer] = []
        with self.disk.running(process), suppress(BrokerUnavailable), self.refusing(new):
            answers = process.acceptor.accept_many(batch)
        for (event, _), answer in zip(batch, answers, strict=False):
            digest = keys.event_digest(event.key)
            if isinstance(answer, Accepted):
                first = self.answered.setdefault(digest, (event.content, self.sends))
                if first[0] != event.content:
                    self.also.add((digest, event.content))

    @contextmanager
    def refusing(self, digests: set[str]) -> Iterator[None]:
        """Remember events that a living process refused and asked no ledger for."""
        try:
            yield
        except SpoolFull:
            self.refused |= digests
            raise

    def drain(self, name: str) -> None:
        """One round of a process's drainer."""
        process = self.process(name)
        if not process.dead:
            with self.disk.running(process), suppress(BrokerUnavailable):
                process.drainer.work()

    def start_offline(self) -> None:
        """Start the process that runs spooled events."""
        if self.breaker.closed or self.offline is not None:
            return
        process = Process("offline", self)
        with self.disk.running(process), suppress(SpoolFull):
            if offline.acquire(process.spool.folder) is not None:
                self.offline = process

    def end_offline(self, *, cut: str = "") -> None:
        """Kill it with its children; `cut`: by a drainer, which says so."""
        if self.offline is None:
            return
        self.disk.end(self.offline)
        self.offline = None
        self.locks.clear()
        for agent, turn in list(self.turns.items()):
            if turn.runs is not None:
                self.end_turn(agent)
        if cut:
            process = self.process(cut)
            if not process.dead:
                with self.disk.running(process), suppress(SpoolFull):
                    process.runs.requeue()

    def end_turn(self, agent: str) -> None:
        """The turn's process ends, however."""
        turn = self.turns.pop(agent, None)
        if turn is not None:
            self.disk.end(turn.process)

    def claim(self, agent: str) -> None:
        """The offline process starts a child for an agent."""
        parent = self.offline
        if parent is None or (agent in self.turns and self.turns[agent].runs is not None):
            return
        with self.disk.running(parent):
            lock = self.locks.setdefault(agent, TurnLock(self.data, agent))
            if not lock.acquire():
                return
        if parent.dead:
            self.end_offline()
            return
        self.fences += 1
        child, found = Process("child", self), None
        with self.disk.running(child), suppress(SpoolFull):
            found = child.runs.claim(agent, self.fences, "here")
            journal = child.runs.steps(found.dispatch_id) if found else {}
        if child.dead or found is None:
            self.disk.end(child)
            return
        self.begin(agent, OfflineTurn(child, found, journal, child.runs))

    def begin(self, agent: str, turn: OfflineTurn) -> None:
        """A turn begins."""
        assert agent not in self.turns, "two turns of one agent"
        dispatch_id = turn.claim.dispatch_id
        if self.ids[dispatch_id] not in self.unsure:
            assert dispatch_id not in self.completed, "it has run to its end before"
        self.turns[agent] = turn

    def work(self, agent: str) -> None:
        """A worker takes the agent's next dispatch."""
        queued = [
            key
            for key, one in self.ledger.dispatches.items()
            if one.agent == agent and not one.ended
        ]
        if not queued or self.ledger.mode != "up" or agent in self.turns:
            return
        worker = Life("worker")
        with self.disk.running(worker):
            if not TurnLock(self.data, agent).acquire(shared=True):
                return
        if worker.dead:
            return
        dispatch = self.ledger.dispatches[queued[0]]
        dispatch.attempt += 1
        event: Any = None
        claim = Claim(
            dispatch_id=queued[0], agent=agent, attempt=dispatch.attempt, fence=0, event=event
        )
        self.begin(agent, OfflineTurn(worker, claim, dict(dispatch.steps), None))

    def advance(self, agent: str, *, defer: bool = False) -> None:
        """The agent's turn makes its next step, or ends."""
        turn = self.turns.get(agent)
        if turn is None:
            return
        dispatch_id = turn.claim.dispatch_id
        step = next((one for one in STEPS if one not in turn.journal), None)
        if step is None or defer:
            ending = Ending(failure=LEFT) if defer else Ending(answer="done")
            if self._record(agent, turn, lambda runs: runs.commit(turn.claim, ending)):
                if not defer:
                    self.completed[dispatch_id] = "offline" if turn.runs else "worker"
                self.end_turn(agent)
            return
        done = self.journaled.setdefault(dispatch_id, set())
        if self.ids[dispatch_id] not in self.unsure:
            assert step not in done, f"step {step} was paid twice"
        if self._record(agent, turn, lambda runs: runs.step(turn.claim, step, "paid")):
            turn.journal[step] = "paid"
            done.add(step)

    def _record(self, agent: str, turn: OfflineTurn, do: Callable[[Any], object]) -> bool:
        """True when it is recorded; otherwise the turn is left."""
        try:
            if turn.runs is None:
                self.ledger._reach(lambda: do(_Worker(self.ledger)))
                return True
            with self.disk.running(turn.process):
                do(turn.runs)
                return True
        except BrokerUnavailable:
            pass
        self.end_turn(agent)
        return False

    def lose_power(self, seed: int) -> None:
        """Every process dies, and the disk forgets."""
        self.kill_all()
        if self.disk.lose_power(Random(seed)):
            self.unsure |= set(self.attempted)
        self.boot += 1
        self.seconds = 10.0

    def alive(self) -> Iterator[Process]:
        """The processes that live."""
        yield from (one for one in self.processes.values() if not one.dead)
        yield from (one.process for one in self.turns.values() if isinstance(one.process, Process))


class _Worker:
    """The ledger as a worker's turn sees it."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger

    def step(self, claim: Claim, key: str, entry: str) -> None:
        self._ledger.dispatches[claim.dispatch_id].steps[key] = entry

    def commit(self, claim: Claim, ending: Ending) -> None:
        self._ledger.dispatches[claim.dispatch_id].ended = ending.failure is None
