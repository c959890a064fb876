"""The dispatches of spooled events as a ledger, while the broker is away.

A dispatch runs from here under three conditions. The ledger cannot have it (see
`fleet.intake.spool.submission_log`). The caller holds the agent's lock of this machine
(`fleet.system.agent_lock`). Its event is not imported yet. The outcome is imported with the event,
in one step.

Only events that need nothing of the store run: none of a session or a chain, none of a paused
agent, none of an agent with a budget or a service that calls back. A failed attempt is not repeated
here: the ledger decides about another one.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from fleet.config.agents import AgentConfig
from fleet.config.settings import Settings
from fleet.intake.spool.file import SpoolFile
from fleet.ledger.answers import read_payload
from fleet.ledger.protocol import NOTHING, Claim, Cost, Ending, Failure, Report
from fleet.ledger.states import FailureStage, State
from fleet.ledger.valkey import LOSSES_MAX
from fleet.system.agent_lock import is_paused
from routing import Event, Plan

_ENDING = TypeAdapter(Ending)
#: Interrupted dispatches first; then the most urgent, and of these the oldest.
_NEXT = """
SELECT run.dispatch, run.state, run.attempt, run.losses, kept.event FROM run JOIN kept USING (seq)
WHERE run.agent = ? AND kept.seq > ? AND run.state IN ('waiting', 'active') AND kept.at > ?
ORDER BY run.attempt = 0, run.priority DESC, run.seq LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A turn that runs now."""

    agent: str
    fence: int
    for_s: float


def may_run_here(agent: AgentConfig | None) -> bool:
    """True when an agent's turns need nothing that only the store knows."""
    if agent is None or agent.callback:
        return False
    return agent.budget.usd_per_day is None and agent.budget.tokens_per_day is None


def alone(event: Event, plan: Plan) -> bool:
    """True when no event that the ledger may have must come before this one."""
    return event.session is None and plan.chain is None


class SpoolLedger:
    """Implements `Runs`, which documents each verb. Raises SpoolFull."""

    def __init__(
        self, file: SpoolFile, settings: Settings, ended: Callable[[], bool] = lambda: False
    ) -> None:
        """`ended` is True once the broker is back: from then on nothing can be claimed."""
        self._file = file
        self._settings = settings
        self._ended = ended

    def waiting(self) -> list[str]:
        """The agents with a dispatch that can be claimed now."""
        if not self._file.exists or self._ended():
            return []
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT run.agent, min(kept.at) FROM run JOIN kept USING (seq) "
                "WHERE run.state IN ('waiting', 'active') AND kept.seq > ? GROUP BY run.agent",
                (self._file.submitted,),
            ).fetchall()
        return [str(agent) for agent, _ in rows if self._may(str(agent))]

    def claim(self, agent: str, fence: int, holder: str) -> Claim | None:
        """The agent's next dispatch; the caller holds the agent's lock of this machine."""
        if self._ended() or not self._may(agent):
            return None
        with self._file.changing() as db:
            while True:
                bounds = (agent, self._file.submitted, self._oldest(agent))
                row = db.execute(_NEXT, bounds).fetchone()
                if row is None:
                    return None
                dispatch_id, state, attempt, losses, payload = row
                # Active means that its process died: the caller has the lock, so no other runs it.
                losses += state == "active"
                if losses >= LOSSES_MAX:
                    self._end(db, dispatch_id, losses, _lost(losses))
                    continue
                db.execute(
                    "UPDATE run SET state = 'active', attempt = ?, losses = ?, fence = ?, "
                    "holder = ?, started = ? WHERE dispatch = ?",
                    (attempt + 1, losses, fence, holder, time.time(), dispatch_id),
                )
                return Claim(
                    dispatch_id=dispatch_id,
                    agent=agent,
                    attempt=attempt + 1,
                    fence=fence,
                    event=read_payload(payload),
                )

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
        with self._file.changing() as db:
            row = db.execute(
                "SELECT 1 FROM run WHERE dispatch = ? AND state = 'active' AND fence = ? "
                "AND attempt = ?",
                (claim.dispatch_id, claim.fence, claim.attempt),
            ).fetchone()
            if row is None:
                raise claim.fenced()
            db.execute(
                "INSERT OR REPLACE INTO step VALUES (?, ?, ?)", (claim.dispatch_id, key, entry)
            )
        return ""

    def steps(self, dispatch_id: str) -> dict[str, str]:
        """The journal of a dispatch: step key -> entry."""
        with self._file.reading() as db:
            found = db.execute("SELECT key, entry FROM step WHERE dispatch = ?", (dispatch_id,))
            return dict(found.fetchall())

    def commit(self, claim: Claim, ending: Ending) -> State:
        """End the attempt. `queued`: a worker, which has the store, is to try it."""
        text = _ENDING.dump_json(ending).decode()
        with self._file.changing() as db:
            row = db.execute(
                "SELECT state, fence, attempt, losses, ending FROM run WHERE dispatch = ?",
                (claim.dispatch_id,),
            ).fetchone()
            if row is None or row[1:3] != (claim.fence, claim.attempt):
                raise claim.fenced()
            if row[0] == "active" and ending.failure is not None and ending.failure.defer:
                db.execute("UPDATE run SET state = 'left' WHERE dispatch = ?", (claim.dispatch_id,))
                return State.QUEUED
            if row[0] == "active":
                self._end(db, claim.dispatch_id, row[3], text)
            elif row[4] != text:
                raise claim.fenced()
        return State.DEAD if ending.failure else State.COMPLETED

    def end_active(self, running: Running, ending: Ending) -> None:
        """End an agent's turn; for the parent of a killed child."""
        with self._file.changing() as db:
            row = db.execute(
                "SELECT dispatch, losses FROM run WHERE agent = ? AND state = 'active' "
                "AND fence = ?",
                (running.agent, running.fence),
            ).fetchone()
            if row is not None:
                self._end(db, row[0], row[1], _ENDING.dump_json(ending).decode())

    def requeue(self) -> None:
        """Let every turn, each cut short without a fault of its own, go on first."""
        if self._file.exists:
            with self._file.changing() as db:
                db.execute("UPDATE run SET state = 'waiting' WHERE state = 'active'")

    def running(self) -> list[Running]:
        """The turns that run now, or were interrupted."""
        now = time.time()
        with self._file.reading() as db:
            rows = db.execute("SELECT agent, fence, started FROM run WHERE state = 'active'")
            return [Running(agent, fence, now - at) for agent, fence, at in rows.fetchall()]

    def reports(self, seqs: Iterable[int]) -> dict[int, list[Report]]:
        """The reports of these events' dispatches that were begun here, by event."""
        found: dict[int, list[Report]] = {}
        with self._file.reading() as db:
            for seq in seqs:
                rows = db.execute(
                    "SELECT dispatch, agent, seq, attempt, losses, holder, started, ended, ending "
                    "FROM run WHERE seq = ? AND attempt > 0 ORDER BY rowid",
                    (seq,),
                ).fetchall()
                for row in rows:
                    steps = db.execute(
                        "SELECT key, entry FROM step WHERE dispatch = ?", (row[0],)
                    ).fetchall()
                    found.setdefault(seq, []).append(_report(self._file.name, row, dict(steps)))
        return found

    def counts(self) -> dict[str, int]:
        """The numbers of turns that run from here now, and that have ended."""
        if not self._file.exists:
            return {"running": 0, "ended": 0}
        with self._file.reading() as db:
            rows = dict(db.execute("SELECT state, count(*) FROM run GROUP BY state").fetchall())
        return {"running": rows.get("active", 0), "ended": rows.get("ended", 0)}

    def _may(self, agent: str) -> bool:
        known = self._settings.agents.get(agent)
        return may_run_here(known) and not is_paused(self._settings.data_dir, agent)

    def _oldest(self, agent: str) -> float:
        """The earliest acceptance that is in time; the ledger expires older events."""
        return time.time() - self._settings.agents[agent].retry.deadline_s

    @staticmethod
    def _end(db: Any, dispatch_id: str, losses: int, text: str) -> None:
        (agent,) = db.execute(
            "UPDATE run SET state = 'ended', ended = ?, losses = ?, ending = ? "
            "WHERE dispatch = ? RETURNING agent",
            (time.time(), losses, text, dispatch_id),
        ).fetchone()
        # It no longer waits, and makes room for another event of its agent.
        db.execute("UPDATE waiting SET events = events - 1 WHERE agent = ?", (agent,))


def _report(file: bytes, row: tuple[Any, ...], steps: dict[str, str]) -> Report:
    dispatch_id, agent, seq, attempt, losses, holder, started, ended, ending = row
    now = time.time()
    return Report(
        dispatch_id=dispatch_id,
        agent=agent,
        run=f"{file.hex()}/{seq}/{attempt}",
        attempt=attempt,
        losses=losses,
        holder=holder,
        started_ago_s=max(0.0, now - started),
        elapsed_s=max(0.0, (ended or now) - started),
        ending=_ENDING.validate_json(ending) if ending else None,
        steps=steps,
    )


def _lost(losses: int) -> str:
    failure = Failure(
        stage=FailureStage.WORKER_LOST,
        reason=f"its process died in mid-turn ({losses} times)",
        retryable=False,
        kind="WorkerLost",
    )
    return json.dumps(asdict(Ending(failure=failure)))
