"""The dispatches of spooled events as a ledger, while the broker is away.

A dispatch runs from here under three conditions. Nothing says that it may have run before
(`Spool.may_have_run`). The caller holds the agent's lock of this machine
(`fleet.system.agent_lock`). Its event is not imported yet. The outcome is imported with the event,
in one step.

Only events that need nothing of the store run: none of a session or a chain, none of a paused
agent, none of an agent with a budget or a service that calls back. A failed attempt is not repeated
here: the ledger decides about another one.
"""

import uuid
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

from fleet.config.settings import Settings
from fleet.intake.spool import segments
from fleet.intake.spool.spool import ENDING, Spool, may_run_here, read_entry
from fleet.intake.spool.state import Entry, Run, SpoolState
from fleet.ledger.protocol import NOTHING, Claim, Cost, Ending, Failure
from fleet.ledger.states import FailureStage, State
from fleet.ledger.valkey import LOSSES_MAX
from fleet.system.agent_lock import is_paused
from fleet.system.clock import Moment


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
        if self._ended():
            return []
        with self._spool.view() as state:
            entries = state.entries.values()
            agents = {agent for entry in entries for agent in entry.dispatches.values()}
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
                segments.sync(entry.record.path)
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
        with self._spool.view() as state:
            run = _run_of(state, claim)
            if run.ended is not None:
                if run.ended["ending"] != _text(ending):
                    raise claim.fenced()
            elif not run.is_active:
                raise claim.fenced()
            elif ending.failure is not None and ending.failure.defer:
                self._spool.append(_base("left", run))
                return State.QUEUED
            else:
                self._end(run, ending, run.losses)
        return State.DEAD if ending.failure else State.COMPLETED

    def end_active(self, dispatch_id: str, ending: Ending) -> None:
        """End a turn unless it has ended; for the parent of a killed child."""
        with self._spool.view() as state:
            run = state.runs.get(dispatch_id)
            if run is not None and run.is_active:
                self._end(run, ending, run.losses)

    def requeue(self) -> None:
        """Let every turn, each cut short without a fault of its own, go on first."""
        if active := self.running():
            self._spool.append(*({**_base("cut", run), "attempt": run.attempt} for run in active))

    def running(self) -> list[Run]:
        """The turns that run now, or were interrupted."""
        with self._spool.view() as state:
            return [run for run in state.runs.values() if run.is_active]

    def counts(self) -> dict[str, int]:
        """The numbers of turns that run from here now, and that have ended."""
        with self._spool.view() as state:
            return {
                "running": sum(run.is_active for run in state.runs.values()),
                "ended": sum(run.ended is not None for run in state.runs.values()),
            }

    def _next(self, state: SpoolState, agent: str) -> tuple[Entry, Run] | None:
        """Interrupted dispatches first; then the most urgent, and of these the oldest."""
        deadline_s = self._settings.agents[agent].retry.deadline_s
        found = []
        for entry in state.entries.values():
            if entry.digest in self._submitted:
                continue
            for dispatch_id, name in entry.dispatches.items():
                if name != agent:
                    continue
                run = state.run(entry, dispatch_id)
                # The ledger expires older events.
                if not run.is_over and entry.moment.age_s() < deadline_s:
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

    def _end(self, run: Run, ending: Ending, losses: int) -> None:
        self._spool.append(
            {
                **_base("ended", run),
                "agent": run.agent,
                "ending": _text(ending),
                "losses": losses,
                "at": astuple(Moment.now()),
            }
        )


def _base(kind: str, run: Run) -> dict[str, Any]:
    return {"k": kind, "seq": run.seq, "id": run.dispatch_id}


def _run_of(state: SpoolState, claim: Claim) -> Run:
    """The run of a claim; raises Fenced unless it is the newest attempt."""
    run = state.runs.get(claim.dispatch_id)
    if run is None or (run.now["fence"], run.attempt) != (claim.fence, claim.attempt):
        raise claim.fenced()
    return run


def _text(ending: Ending) -> str:
    return ENDING.dump_json(ending).decode()


def _lost(losses: int) -> Ending:
    failure = Failure(
        stage=FailureStage.WORKER_LOST,
        reason=f"its process died in mid-turn ({losses} times)",
        retryable=False,
        kind="WorkerLost",
    )
    return Ending(failure=failure)
