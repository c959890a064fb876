"""The events in the spool: kept in order, told apart by digest, until the ledger has them."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from pydantic import TypeAdapter

from fleet.config.spool import SpoolConfig as Limits
from fleet.errors import IdempotencyConflict, Refused
from fleet.intake.spool.file import SpoolFile, SpoolFull
from fleet.ledger.chained import first_dispatches
from fleet.ledger.payload import payload_of, read_payload
from fleet.ledger.protocol import Accepted, Answer
from fleet.store import keys
from routing import Chain, Event, Plan, RoutingError

__all__ = ["Kept", "Size", "Spool", "SpoolFull"]

_PLAN = TypeAdapter(Plan)
#: Of a row besides its event and its plan.
_ROW_BYTES = 128

#: Whether an event's dispatches may run before the ledger has them.
MayRun = Callable[[Event, Plan], bool]


@dataclass(frozen=True, slots=True)
class Kept:
    """One event that waits for the ledger."""

    seq: int
    event: Event
    plan: Plan
    age_s: float  #: since it was accepted


@dataclass(frozen=True, slots=True)
class Size:
    """How much the spool holds."""

    events: int
    bytes: int


class Spool:
    """Safe to share between threads, and between processes on one data folder.

    Every method but `holds` raises SpoolFull with one sentence when the file cannot be used.
    """

    def __init__(
        self,
        data_dir: Path,
        limits: Limits,
        pending_max: Callable[[str], int],
        chains: Mapping[str, Chain],
        may_run: MayRun = lambda _event, _plan: False,
    ) -> None:
        """`pending_max` tells how many events may wait for an agent."""
        self.file = SpoolFile(data_dir.absolute() / "spool")
        self._limits = limits
        self._pending_max = pending_max
        self._chains = chains
        self._may_run = may_run
        self._from = b""  #: the file that `first` has read

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.file.folder

    @property
    def enabled(self) -> bool:
        """False where the operator wants no spool."""
        return self._limits.max_events > 0

    @property
    def exists(self) -> bool:
        """False until anything was ever kept."""
        return self.file.exists

    @property
    def holds(self) -> bool:
        """True while anything waits in it; costs next to nothing. False where there is no spool."""
        return self.file.flag.holds if self._is_flagged() else False

    def prepare(self) -> None:
        """Make its folder now, so that `holds` costs next to nothing."""
        self.file.prepare()

    def store(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        """Keep each event, synced to disk when this returns; a known one is not kept twice.

        All or nothing, but for those of which an agent has too many already, and those whose id
        stands for other content.
        """
        with self.file.changing() as db:
            # Before it is asked who may run: from now on nobody offers the ledger an event past it.
            self.file.flag.holds = True
            events, size = db.execute("SELECT events, bytes FROM total").fetchone()
            answers = [self._keep(db, event, plan) for event, plan in batch]
            grown = db.execute("SELECT events, bytes FROM total").fetchone()
            limits = self._limits
            if grown != (events, size) and (
                grown[0] > limits.max_events or grown[1] > limits.max_bytes
            ):
                raise SpoolFull(_full(Size(events, size)))
            # Before the commit, so that nobody who was answered is overtaken. Should that fail,
            # the keeper finds nothing and sets it right.
            self.file.flag.holds = self.file.waits(db)
        return answers

    def first(self, count: int) -> list[Kept]:
        """The oldest events in it; one that cannot be read is put aside."""
        with self.file.reading() as db:
            rows = db.execute(
                "SELECT seq, at, event, plan FROM kept WHERE seq > ? ORDER BY seq LIMIT ?",
                (self.file.done, count),
            ).fetchall()
            self._from = self.file.name
        now, found = time.time(), list[Kept]()
        for seq, at, event, plan in rows:
            try:
                # A clock that was set back must not give an event more time than it had.
                found.append(Kept(seq, read_payload(event), read_plan(plan), max(0.0, now - at)))
            except (ValueError, KeyError, RoutingError) as error:
                self.quarantine(seq, f"it cannot be read any more ({type(error).__name__})")
        return found

    def offering(self, last: int) -> None:
        """The ledger is asked to take the events up to `last`, of those that `first` has told.

        Whether it has them is not known from then on, and none of them is run from here any more.
        Needs no room on the disk.
        """
        self.file.flag.set_offered(last, self._from)

    def mark_imported(self, last: int) -> bool:
        """The ledger has the events up to `last`, of those that `first` has told.

        True when, from now on, nothing waits any more. Needs no room on the disk. What a power loss
        makes forget is handed over again: duplicates.
        """
        with self.file.alone() as db:
            # Of another file, where that one was set aside since: then the new one holds them all.
            self.file.flag.set_done(last, self._from)
            waits = self.file.waits(db)
            self.file.flag.holds = waits
        return not waits

    def clear(self) -> None:
        """Forget the events that the ledger has, and leave nothing of them on the disk."""
        with self.file.changing() as db:
            gone = db.execute(
                "DELETE FROM kept WHERE seq <= ? RETURNING size, plan", (self.file.done,)
            ).fetchall()
            per_agent = Counter(agent for _, plan in gone for agent in read_plan(plan).agents)
            ran = "DELETE FROM run WHERE seq <= ? RETURNING dispatch, agent, state"
            for dispatch_id, agent, state in db.execute(ran, (self.file.done,)).fetchall():
                db.execute("DELETE FROM step WHERE dispatch = ?", (dispatch_id,))
                # One that has ended was taken off already.
                per_agent[agent] -= state == "ended"
            _count_down(db, per_agent)
            _shrink(db, len(gone), sum(size for size, _ in gone))

    def quarantine(self, seq: int, reason: str) -> None:
        """Take an event out of the line that the ledger cannot take as it is; it stays on disk."""
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
        """Put what is aside at the end of the line again, for another try; how many events."""
        with self.file.changing() as db:
            rows = db.execute("SELECT digest, at, event, plan FROM aside").fetchall()
            for digest, at, event, plan in rows:
                size = len(event.encode()) + len(plan) + _ROW_BYTES
                # One that was sent again meanwhile is in the line already.
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
        """Why each event that was put aside could not be handed over; without content."""
        if not self.exists:
            return []
        with self.file.reading() as db:
            return [str(row[0]) for row in db.execute("SELECT reason FROM aside").fetchall()]

    def size(self) -> Size:
        """How much waits in it."""
        if not self.file.is_open and not self.exists:
            return Size(0, 0)
        with self.file.reading() as db:
            waiting = "SELECT count(*), coalesce(sum(size), 0) FROM kept WHERE seq > ?"
            return Size(*db.execute(waiting, (self.file.done,)).fetchone())

    def check_room(self) -> None:
        """Raises SpoolFull when an event that comes now would not be kept."""
        held = self.size()
        if held.events >= self._limits.max_events or held.bytes >= self._limits.max_bytes:
            raise SpoolFull(_full(held))
        # A full disk shows only when something is written.
        with self.file.changing() as db:
            db.execute("UPDATE total SET events = events")

    def count_refused(self, events: int) -> None:
        """So many were refused; about, when several processes count at the same instant."""
        self.file.flag.count_refused(events)

    @property
    def refused(self) -> int:
        """How many were refused since that was last told on the bus."""
        return self.file.flag.refused if self._is_flagged() else 0

    def pop_refused(self) -> int:
        """The same, which is then told."""
        return self.file.flag.take_refused()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _is_flagged(self) -> bool:
        """Whether some process has made the flag; this one then has it in its memory."""
        flag = self.file.flag
        if not flag.is_open and flag.exists:
            self.file.open_flag()
        return flag.is_open

    def _keep(self, db: Connection, event: Event, plan: Plan) -> Answer:
        digest = keys.event_digest(event.key)
        # What is aside was accepted, too, and is tried again.
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
            if row and row[0] >= self._pending_max(agent):
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

    def _accepted(self, event: Event, plan: Plan, *, duplicate: bool) -> Accepted:
        """As the ledger will answer."""
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


def read_plan(text: str) -> Plan:
    """A plan as it was kept."""
    return _PLAN.validate_json(text)


def _is_other(payload: str, event: Event) -> bool:
    """Whether a kept event of the same id has other content; what cannot be read has the same."""
    try:
        return read_payload(payload).content != event.content
    except (ValueError, KeyError, RoutingError):
        return False


def _agents_of(text: str) -> tuple[str, ...]:
    """Those of a plan; none where it cannot be read any more."""
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
