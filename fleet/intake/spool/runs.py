"""The dispatches of spooled events as a ledger, while the broker is away.

A dispatch runs from here under three conditions. Nothing says that it may have run before
(`Spool.may_have_run`). The caller holds the agent's lock of this machine
(`fleet.system.agent_lock`). Its event is not imported yet. The outcome is imported with the event,
in one step.

Only events that need nothing of the store run: none of a session or a chain, none of a paused
agent, none of an agent with a budget or a service that calls back. A failed attempt is not repeated
here: the ledger decides about another one.
"""

import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, astuple, dataclass
from typing import Any

from pydantic import TypeAdapter

from fleet.config.settings import Settings
from fleet.intake.spool import segments
from fleet.intake.spool.spool import Spool, may_run_here, read_entry
from fleet.intake.spool.state import Entry, Run, SpoolState
from fleet.ledger.protocol import NOTHING, Claim, Cost, Ending, Failure, Report
from fleet.ledger.states import FailureStage, State
from fleet.ledger.valkey import LOSSES_MAX
from fleet.system.agent_lock import is_paused
from fleet.system.clock import Moment

_ENDING = TypeAdapter(Ending)


@dataclass(frozen=True, slots=True)
class Running:
    """A turn that runs now."""

    agent: str
    fence: int
    for_s: float


class SpoolLedger:
    """Implements `Runs`, which documents each verb. Raises SpoolFull."""

    def __init__(
        self, spool: Spool, settings: Settings, ended: Callable[[], bool] = lambda: False
    ) -> None:
        """`ended` is True once the broker is back: from then on nothing can be claimed."""
        self._spool = spool
        self._settings = settings
        self._ended = ended
        #: Events that may have run; that never changes.
        self._submitted = set[str]()

    def waiting(self) -> list[str]:
        """The agents with a dispatch that can be claimed now."""
        if not self._spool.exists or self._ended():
            return []
        with self._spool.view() as state:
            agents = {agent for entry in state.ordered() for agent in entry.dispatches.values()}
            return [
                agent
                for agent in sorted(agents)
                if self._may(agent) and self._next(state, agent) is not None
            ]

    def claim(self, agent: str, fence: int, holder: str) -> Claim | None:
        """The agent's next dispatch; the caller holds the agent's lock of this machine."""
        if self._ended() or not self._may(agent):
            return None
        with self._spool.alone() as state:
            while (found := self._next(state, agent)) is not None:
                entry, run = found
                # Active means that its process died: the caller has the lock, so no other runs it.
                losses = run.losses + run.is_active
                if losses >= LOSSES_MAX:
                    self._end(run, _lost(losses), losses)
                    continue
                # Whoever stored it may have died before it was synced.
                segments.sync(entry.place.path)
                begun = {
                    **_base("begun", run),
                    "agent": agent,
                    "attempt": run.attempt + 1,
                    "run": uuid.uuid4().hex,
                    "fence": fence,
                    "holder": holder,
                    "at": astuple(Moment.now()),
                }
                self._spool.append(begun)
                return Claim(
                    dispatch_id=run.dispatch_id,
                    agent=agent,
                    attempt=begun["attempt"],
                    fence=fence,
                    event=read_entry(entry)[0],
                )
        return None

    def step(
        self,
        claim: Claim,
        key: str,
        entry: str,
        cost: Cost = NOTHING,
        verification: str = "",
        reason: str = "",
    ) -> str:
        """Journal a finished step; nobody can cancel a turn here.

        Its cost and the verification of its hand-off are in the entry, and are reported on import.
        """
        with self._spool.view() as state:
            run = _run_of(state, claim)
            if not run.is_active:
                raise claim.fenced()
            self._spool.append({**_base("step", run), "key": key, "entry": entry})
        return ""

    def steps(self, dispatch_id: str) -> dict[str, str]:
        """The journal of a dispatch: step key -> entry."""
        with self._spool.view() as state:
            run = state.runs.get(dispatch_id)
            return dict(run.steps) if run else {}

    def commit(self, claim: Claim, ending: Ending) -> State:
        """End the attempt. `queued`: a worker, which has the store, is to try it."""
        text = _ENDING.dump_json(ending).decode()
        with self._spool.view() as state:
            run = _run_of(state, claim)
            if run.ended is not None:
                if run.ended["ending"] != text:
                    raise claim.fenced()
            elif not run.is_active:
                raise claim.fenced()
            elif ending.failure is not None and ending.failure.defer:
                self._spool.append(_base("left", run))
                return State.QUEUED
            else:
                self._end(run, text)
        return State.DEAD if ending.failure else State.COMPLETED

    def end_active(self, running: Running, ending: Ending) -> None:
        """End an agent's turn; for the parent of a killed child."""
        with self._spool.view() as state:
            for run in list(state.runs.values()):
                mine = run.is_active and run.now["fence"] == running.fence
                if mine and run.agent == running.agent:
                    self._end(run, _ENDING.dump_json(ending).decode())

    def requeue(self) -> None:
        """Let every turn, each cut short without a fault of its own, go on first."""
        if self._spool.exists:
            with self._spool.view() as state:
                active = [run for run in state.runs.values() if run.is_active]
                if active:
                    self._spool.append(
                        *({**_base("cut", run), "attempt": run.attempt} for run in active)
                    )

    def running(self) -> list[Running]:
        """The turns that run now, or were interrupted."""
        with self._spool.view() as state:
            return [
                Running(run.agent, run.now["fence"], Moment(*run.now["at"]).age_s())
                for run in state.runs.values()
                if run.is_active
            ]

    def reports(self, seqs: Iterable[int]) -> dict[int, list[Report]]:
        """The reports of these events' dispatches that were begun here, by event."""
        found: dict[int, list[Report]] = {seq: [] for seq in seqs}
        with self._spool.view() as state:
            for report_of, run in ((found.get(run.seq), run) for run in state.runs.values()):
                if report_of is not None and run.begun:
                    report_of.append(report(run))
        return found

    def counts(self) -> dict[str, int]:
        """The numbers of turns that run from here now, and that have ended."""
        if not self._spool.exists:
            return {"running": 0, "ended": 0}
        with self._spool.view() as state:
            runs = list(state.runs.values())
        return {
            "running": sum(run.is_active for run in runs),
            "ended": sum(run.ended is not None for run in runs),
        }

    def _next(self, state: SpoolState, agent: str) -> tuple[Entry, Run] | None:
        """Interrupted dispatches first; then the most urgent, and of these the oldest."""
        deadline_s = self._settings.agents[agent].retry.deadline_s
        found = []
        for entry in state.ordered():
            if agent not in entry.dispatches.values() or entry.digest in self._submitted:
                continue
            for dispatch_id, name in entry.dispatches.items():
                run = state.run(entry, dispatch_id)
                # The ledger expires older events.
                if name == agent and not run.is_over and entry.moment.age_s() < deadline_s:
                    found.append(((run.attempt == 0, -entry.priority, entry.seq), entry, run))
        for _, entry, run in sorted(found, key=lambda one: one[0]):
            if not self._spool.may_have_run(entry.digest):
                return entry, run
            if not self._spool.is_damaged:
                self._submitted.add(entry.digest)
        return None

    def _may(self, agent: str) -> bool:
        known = self._settings.agents.get(agent)
        return may_run_here(known) and not is_paused(self._settings.data_dir, agent)

    def _end(self, run: Run, text: str, losses: int | None = None) -> None:
        self._spool.append(
            {
                **_base("ended", run),
                "agent": run.agent,
                "ending": text,
                "losses": run.losses if losses is None else losses,
                "at": astuple(Moment.now()),
            }
        )


def report(run: Run) -> Report:
    """Report a dispatch that has begun here to the ledger."""
    begun = Moment(*run.now["at"])
    ended_ago_s = Moment(*run.ended["at"]).age_s() if run.ended else 0.0
    return Report(
        dispatch_id=run.dispatch_id,
        agent=run.agent,
        run=run.now["run"],
        attempt=run.attempt,
        losses=run.ended["losses"] if run.ended else run.losses,
        holder=run.now["holder"],
        started_ago_s=begun.age_s(),
        elapsed_s=max(0.0, begun.age_s() - ended_ago_s),
        ending=_ENDING.validate_json(run.ended["ending"]) if run.ended else None,
        steps=run.steps,
    )


def _base(kind: str, run: Run) -> dict[str, Any]:
    return {"k": kind, "seq": run.seq, "id": run.dispatch_id}


def _run_of(state: SpoolState, claim: Claim) -> Run:
    """The run of a claim; raises Fenced unless it is the newest attempt."""
    run = state.runs.get(claim.dispatch_id)
    if run is None or (run.now["fence"], run.attempt) != (claim.fence, claim.attempt):
        raise claim.fenced()
    return run


def _lost(losses: int) -> str:
    failure = Failure(
        stage=FailureStage.WORKER_LOST,
        reason=f"its process died in mid-turn ({losses} times)",
        retryable=False,
        kind="WorkerLost",
    )
    return json.dumps(asdict(Ending(failure=failure)))
