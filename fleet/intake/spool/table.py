"""The events in the spool: stored in order, each digest once, until the ledger has them."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from pydantic import TypeAdapter

from fleet.config.settings import Settings
from fleet.errors import IdempotencyConflict, Refused
from fleet.intake.spool.file import SpoolFile, SpoolFull
from fleet.intake.spool.runs import alone, may_run_here
from fleet.intake.spool.submission_log import SubmissionLog
from fleet.ledger.answers import read_payload
from fleet.ledger.arguments import first_dispatches, payload_of
from fleet.ledger.protocol import Accepted, Answer
from fleet.store import keys
from routing import Event, Plan, RoutingError

__all__ = ["Size", "Spool", "SpoolFull", "SpooledEvent"]

_PLAN = TypeAdapter(Plan)
#: The size of a row besides its event and its plan.
_ROW_BYTES = 128


@dataclass(frozen=True, slots=True)
class SpooledEvent:
    """An event that waits for the ledger."""

    seq: int
    event: Event
    plan: Plan
    age_s: float  #: since it was accepted


@dataclass(frozen=True, slots=True)
class Size:
    """The amount that the spool holds."""

    events: int
    bytes: int


class Spool:
    """Safe to share between threads, and between processes on one data folder.

    Every method except `holds` raises SpoolFull with one sentence when the file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        """Open nothing yet."""
        self.file = SpoolFile(settings.data_dir.absolute() / "spool")
        #: None where no turn runs from the spool.
        self.submissions = SubmissionLog(self.file.folder) if settings.runs_offline else None
        self._limits = settings.spool
        self._agents = settings.agents
        self._chains = settings.routing_chains()
        self._from = b""  #: the file that `first` has read

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.file.folder

    @property
    def enabled(self) -> bool:
        """False where the operator wants no spool."""
        return self._limits.max_events > 0

    @property
    def exists(self) -> bool:
        """False until an event was ever stored."""
        return self.file.exists

    @property
    def holds(self) -> bool:
        """True while an event waits; costs next to nothing. False where there is no spool."""
        return self.file.flag.holds if self._is_flagged() else False

    def prepare(self) -> None:
        """Make the folder now, so that `holds` costs next to nothing."""
        self.file.prepare()

    def record_submissions(self, events: Iterable[Event]) -> None:
        """Record events before the ledger may have them: none of them runs from the spool."""
        if self.submissions is not None:
            self.submissions.record(keys.event_digest(event.key) for event in events)

    def store(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        """Store each event, synced to disk when this returns; a known one is not stored twice.

        All or nothing, except events of an agent that has too many already, and events whose id
        stands for other content.
        """
        with self.file.changing() as db:
            # Before `_may_run` is asked: from now on no process submits an event past the spool.
            self.file.flag.holds = True
            events, size = db.execute("SELECT events, bytes FROM total").fetchone()
            answers = [self._store(db, event, plan) for event, plan in batch]
            grown = db.execute("SELECT events, bytes FROM total").fetchone()
            limits = self._limits
            if grown != (events, size) and (
                grown[0] > limits.max_events or grown[1] > limits.max_bytes
            ):
                raise SpoolFull(_full(Size(events, size)))
            # Before the commit, so that no answered event is overtaken. Should the commit fail,
            # the drainer finds nothing and corrects the flag.
            self.file.flag.holds = self.file.waits(db)
        # They may run from here now: repeated after the spool has forgotten them, they must not.
        pairs = zip(batch, answers, strict=True)
        self.record_submissions(event for (event, _), answer in pairs if _is_new(answer))
        return answers

    def first(self, count: int) -> list[SpooledEvent]:
        """The oldest events; an unreadable one is quarantined."""
        with self.file.reading() as db:
            rows = db.execute(
                "SELECT seq, at, event, plan FROM kept WHERE seq > ? ORDER BY seq LIMIT ?",
                (self.file.imported, count),
            ).fetchall()
            self._from = self.file.name
        now, found = time.time(), list[SpooledEvent]()
        for seq, at, event, plan in rows:
            try:
                # A clock that was set back must not give an event more time than it had.
                found.append(
                    SpooledEvent(seq, read_payload(event), read_plan(plan), max(0.0, now - at))
                )
            except (ValueError, KeyError, RoutingError) as error:
                self.quarantine(seq, f"it cannot be read any more ({type(error).__name__})")
        return found

    def begin_import(self, spooled: Sequence[SpooledEvent]) -> None:
        """Record, before the ledger is asked, that it may have these first events.

        From then on none of them runs from here. Needs no room in the spool's file.
        """
        if spooled:
            self.file.flag.set_submitted(spooled[-1].seq, self._from)
            self.record_submissions(one.event for one in spooled)

    def mark_imported(self, last: int) -> bool:
        """Record that the ledger has the events up to `last`, of those that `first` returned.

        True when, from now on, no event waits. Needs no room on the disk. Events whose mark a power
        loss undoes are imported again: duplicates.
        """
        with self.file.alone() as db:
            # Where that file was set aside since, the mark is void, and the new file holds all.
            self.file.flag.set_imported(last, self._from)
            waits = self.file.waits(db)
            self.file.flag.holds = waits
        return not waits

    def clear(self) -> None:
        """Forget the events that the ledger has, and erase them from the disk."""
        with self.file.changing() as db:
            gone = db.execute(
                "DELETE FROM kept WHERE seq <= ? RETURNING size, plan", (self.file.imported,)
            ).fetchall()
            per_agent = Counter(agent for _, plan in gone for agent in read_plan(plan).agents)
            ran = "DELETE FROM run WHERE seq <= ? RETURNING dispatch, agent, state"
            for dispatch_id, agent, state in db.execute(ran, (self.file.imported,)).fetchall():
                db.execute("DELETE FROM step WHERE dispatch = ?", (dispatch_id,))
                # An ended one was subtracted already.
                per_agent[agent] -= state == "ended"
            _count_down(db, per_agent)
            _shrink(db, len(gone), sum(size for size, _ in gone))

    def quarantine(self, seq: int, reason: str) -> None:
        """Set apart an event that the ledger cannot accept as it is; it stays on disk."""
        with self.file.changing() as db:
            row = db.execute("SELECT size, plan FROM kept WHERE seq = ?", (seq,)).fetchone()
            if row is None:
                return
            db.execute(
                "INSERT OR REPLACE INTO aside SELECT digest, at, event, plan, ? FROM kept "
                "WHERE seq = ?",
                (reason, seq),
            )
            db.execute("DELETE FROM kept WHERE seq = ?", (seq,))
            db.execute("DELETE FROM run WHERE seq = ?", (seq,))
            _count_down(db, Counter(_agents_of(row[1])))
            _shrink(db, 1, row[0])

    def release_quarantined(self) -> int:
        """Queue the quarantined events again, behind all others; returns their number."""
        with self.file.changing() as db:
            rows = db.execute("SELECT digest, at, event, plan FROM aside").fetchall()
            for digest, at, event, plan in rows:
                size = len(event.encode()) + len(plan) + _ROW_BYTES
                # A resent event is queued already.
                added = db.execute(
                    "INSERT OR IGNORE INTO kept (digest, at, size, event, plan) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (digest, at, size, event, plan),
                ).rowcount
                _shrink(db, -added, -added * size)
                _count_up(db, _agents_of(plan) if added else ())
            db.execute("DELETE FROM aside")
            self.file.flag.holds = self.file.waits(db)
        return len(rows)

    def quarantined(self) -> list[str]:
        """The reason of each quarantined event; without content."""
        if not self.exists:
            return []
        with self.file.reading() as db:
            return [str(row[0]) for row in db.execute("SELECT reason FROM aside").fetchall()]

    def size(self) -> Size:
        """The events that wait, and their bytes."""
        if not self.file.is_open and not self.exists:
            return Size(0, 0)
        with self.file.reading() as db:
            waiting = "SELECT count(*), coalesce(sum(size), 0) FROM kept WHERE seq > ?"
            return Size(*db.execute(waiting, (self.file.imported,)).fetchone())

    def check_room(self) -> None:
        """Raise SpoolFull when an event that comes now would not be stored."""
        held = self.size()
        if held.events >= self._limits.max_events or held.bytes >= self._limits.max_bytes:
            raise SpoolFull(_full(held))
        # Only a write shows a full disk.
        with self.file.changing() as db:
            db.execute("UPDATE total SET events = events")

    def count_refused(self, events: int) -> None:
        """Count refused events; inexact when several processes count at the same instant."""
        self.file.flag.count_refused(events)

    @property
    def refused(self) -> int:
        """The events refused since the bus was last notified."""
        return self.file.flag.refused if self._is_flagged() else 0

    def pop_refused(self) -> int:
        """The same, reset to 0."""
        return self.file.flag.pop_refused()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _is_flagged(self) -> bool:
        """True once some process has made the flag, which this one then maps."""
        flag = self.file.flag
        if not flag.is_open and flag.exists:
            self.file.open_flag()
        return flag.is_open

    def _store(self, db: Connection, event: Event, plan: Plan) -> Answer:
        digest = keys.event_digest(event.key)
        # A quarantined event was accepted, too, and is tried again.
        for (payload,) in db.execute(
            "SELECT event FROM kept WHERE digest = ? "
            "UNION ALL SELECT event FROM aside WHERE digest = ?",
            (digest, digest),
        ).fetchall():
            if _is_other(payload, event):
                return IdempotencyConflict()
        known = db.execute("SELECT plan FROM kept WHERE digest = ?", (digest,)).fetchone()
        if known:
            return self._accepted(event, read_plan(known[0]), duplicate=True)
        for agent in plan.agents:
            row = db.execute("SELECT events FROM waiting WHERE agent = ?", (agent,)).fetchone()
            if row and row[0] >= self._agents[agent].max_pending:
                return Refused(
                    f"{agent} has {row[0]} events waiting for the broker, its max_pending: "
                    "send it later."
                )
        payload, text = payload_of(event), _PLAN.dump_json(plan).decode()
        size = len(payload.encode(errors="replace")) + len(text) + _ROW_BYTES
        cursor = db.execute(
            "INSERT INTO kept (digest, at, size, event, plan) VALUES (?, ?, ?, ?, ?)",
            (digest, time.time(), size, payload.encode(errors="replace").decode(), text),
        )
        _count_up(db, plan.agents)
        if self._may_run(event, plan):
            db.executemany(
                "INSERT INTO run (dispatch, seq, agent, priority, state) "
                "VALUES (?, ?, ?, ?, 'waiting')",
                [
                    (keys.dispatch_id(event.key, agent), cursor.lastrowid, agent, event.priority)
                    for agent in plan.agents
                ],
            )
        db.execute("UPDATE total SET events = events + 1, bytes = bytes + ?", (size,))
        return self._accepted(event, plan, duplicate=False)

    def _may_run(self, event: Event, plan: Plan) -> bool:
        """True where the ledger cannot have the event, and its agents need nothing of the store."""
        if self.submissions is None or not alone(event, plan):
            return False
        known = all(may_run_here(self._agents.get(agent)) for agent in plan.agents)
        return known and not self.submissions.has(keys.event_digest(event.key))

    def _accepted(self, event: Event, plan: Plan, *, duplicate: bool) -> Accepted:
        """The answer that the ledger will give."""
        pairs = tuple((keys.dispatch_id(event.key, agent), agent) for agent in plan.agents)
        chain_id = None
        if plan.chain is not None:
            chain_id = keys.chain_id(event.key, plan.chain)
            if chain := self._chains.get(plan.chain):
                pairs = first_dispatches(chain, event)
        return Accepted(
            event_id=event.id,
            dispatches=pairs,
            duplicate=duplicate,
            chain=plan.chain,
            chain_id=chain_id,
        )


def _is_new(answer: Answer) -> bool:
    return isinstance(answer, Accepted) and not answer.duplicate


def read_plan(text: str) -> Plan:
    """Read a plan as it was stored."""
    return _PLAN.validate_json(text)


def _is_other(payload: str, event: Event) -> bool:
    """True when a stored event has other content than `event`; unreadable counts as the same."""
    try:
        return read_payload(payload).content != event.content
    except (ValueError, KeyError, RoutingError):
        return False


def _agents_of(text: str) -> tuple[str, ...]:
    """The agents of a plan; none where it is unreadable."""
    try:
        return read_plan(text).agents
    except ValueError:
        return ()


def _count_up(db: Connection, agents: Iterable[str]) -> None:
    db.executemany(
        "INSERT INTO waiting VALUES (?, 1) ON CONFLICT (agent) DO UPDATE SET events = events + 1",
        [(agent,) for agent in agents],
    )


def _count_down(db: Connection, per_agent: Mapping[str, int]) -> None:
    db.executemany(
        "UPDATE waiting SET events = events - ? WHERE agent = ?",
        [(number, agent) for agent, number in per_agent.items()],
    )
    db.execute("DELETE FROM waiting WHERE events <= 0")


def _shrink(db: Connection, events: int, size: int) -> None:
    db.execute("UPDATE total SET events = events - ?, bytes = bytes - ?", (events, size))


def _full(held: Size) -> str:
    return (
        f"the spool is full with {held.events} events of {held.bytes} bytes: "
        "send it again later, or raise spool.max_events and spool.max_bytes."
    )
