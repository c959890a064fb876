"""The spool on disk: an SQLite file in which events wait for the ledger, in order."""

import mmap
import os
import sqlite3
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from fleet import keys
from fleet.errors import BrokerUnavailable, Refused
from fleet.ledger.chained import first_dispatches
from fleet.ledger.protocol import Accepted
from fleet.ledger.valkey import payload_of, read_payload
from fleet.sections import Spool as Limits
from routing import Chain, Event, Plan

_PLAN = TypeAdapter(Plan)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, at REAL NOT NULL,
  size INTEGER NOT NULL, event TEXT NOT NULL, plan TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS waiting (agent TEXT PRIMARY KEY, events INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS total (
  one INTEGER PRIMARY KEY CHECK (one = 1), events INTEGER NOT NULL, bytes INTEGER NOT NULL,
  file BLOB NOT NULL
) STRICT;
INSERT OR IGNORE INTO total VALUES (1, 0, 0, randomblob(16));
PRAGMA user_version = 1;
"""
#: Of a row besides its event and its plan.
_ROW_BYTES = 128
#: Another process is in the middle of a batch; it needs milliseconds.
_LOCKED_S = 5.0
_EMPTY = b"\0"
#: Shared by all processes: whether it holds anything, how many events were refused, up to where the
#: ledger has them, and of which file that is true. It takes no room on a disk that has become full.
_FLAG = struct.Struct("=c3xIQ16s")
_REFUSED, _DONE = slice(4, 8), slice(8, 32)


class SpoolFull(BrokerUnavailable):
    """The spool takes nothing: nothing was kept."""


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
    ) -> None:
        """`pending_max` tells how many events may wait for an agent."""
        self.folder = data_dir.absolute() / "spool"
        self._limits = limits
        self._pending_max = pending_max
        self._chains = chains
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._flag: mmap.mmap | None = None
        self._file = b""  #: names the file, so that a new one does not begin where an old one ended

    @property
    def enabled(self) -> bool:
        """False where the operator wants no spool."""
        return self._limits.max_events > 0

    @property
    def exists(self) -> bool:
        """False until anything was ever kept."""
        return (self.folder / "spool.db").exists()

    @property
    def holds(self) -> bool:
        """True while anything waits in it; costs next to nothing. False where there is no spool."""
        if self._flag is None:
            if not (self.folder / "flag").exists():
                return False
            with self._lock:
                self._map_flag()
        return self._flag is not None and self._flag[:1] != _EMPTY

    def prepare(self) -> None:
        """Make its folder now, so that `holds` costs next to nothing."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._lock:
                self._map_flag()
        except OSError as error:
            raise SpoolFull(_unusable(error)) from error

    def keep(self, batch: Sequence[tuple[Event, Plan]]) -> list[Accepted | Refused]:
        """Keep each event, synced to disk when this returns; a known one is not kept twice.

        All or nothing, but for those of which an agent has too many already.
        """
        with self._changing() as db:
            events, size = db.execute("SELECT events, bytes FROM total").fetchone()
            answers = [self._keep(db, event, plan) for event, plan in batch]
            grown = db.execute("SELECT events, bytes FROM total").fetchone()
            waits = self._waits(db)
            limits = self._limits
            if grown != (events, size) and (
                grown[0] > limits.max_events or grown[1] > limits.max_bytes
            ):
                raise SpoolFull(_full(Size(events, size)))
            # Before the commit, so that nobody who was answered is overtaken. Should that fail,
            # the keeper finds nothing and sets it right.
            self._set_flag(waits)
        return answers

    def first(self, count: int) -> list[Kept]:
        """The oldest events in it."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT seq, at, event, plan FROM kept WHERE seq > ? ORDER BY seq LIMIT ?",
                (self._done(), count),
            ).fetchall()
        now = time.time()
        return [
            # A clock that was set back must not give an event more time than it had.
            Kept(seq, read_payload(event), _plan(plan), max(0.0, now - at))
            for seq, at, event, plan in rows
        ]

    def handed_over(self, last: int) -> bool:
        """The ledger has the events up to `last`; True when, from now on, nothing waits any more.

        Needs no room on the disk. What a power loss makes forget is handed over again: duplicates.
        """
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                if self._flag is not None and last > self._done():
                    self._flag[_DONE] = struct.pack("=Q16s", last, self._file)
                waits = self._waits(db)
                self._set_flag(waits)
            finally:
                db.execute("ROLLBACK")
        return not waits

    def clear(self) -> None:
        """Forget the events that the ledger has, and leave nothing of them on the disk."""
        with self._changing() as db:
            gone = db.execute(
                "DELETE FROM kept WHERE seq <= ? RETURNING size, plan", (self._done(),)
            ).fetchall()
            per_agent = Counter(agent for _, plan in gone for agent in _plan(plan).agents)
            db.executemany(
                "UPDATE waiting SET events = events - ? WHERE agent = ?",
                [(number, agent) for agent, number in per_agent.items()],
            )
            db.execute("DELETE FROM waiting WHERE events <= 0")
            db.execute(
                "UPDATE total SET events = events - ?, bytes = bytes - ?",
                (len(gone), sum(size for size, _ in gone)),
            )
        with self._reading() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def size(self) -> Size:
        """How much waits in it."""
        if self._db is None and not self.exists:
            return Size(0, 0)
        with self._reading() as db:
            waiting = "SELECT count(*), coalesce(sum(size), 0) FROM kept WHERE seq > ?"
            return Size(*db.execute(waiting, (self._done(),)).fetchone())

    def check_room(self) -> None:
        """Raises SpoolFull when an event that comes now would not be kept."""
        held = self.size()
        if held.events >= self._limits.max_events or held.bytes >= self._limits.max_bytes:
            raise SpoolFull(_full(held))
        # A full disk shows only when something is written.
        with self._changing() as db:
            db.execute("UPDATE total SET events = events")

    def count_refused(self, events: int) -> None:
        """So many were refused; about, when several processes count at the same instant."""
        if self._flag is not None:
            refused: int = _FLAG.unpack_from(self._flag)[1]
            self._flag[_REFUSED] = struct.pack("=I", min(refused + events, 2**32 - 1))

    def take_refused(self) -> int:
        """How many were refused since the last time this was asked."""
        if self._flag is None:
            return 0
        refused: int = _FLAG.unpack_from(self._flag)[1]
        if refused:
            self._flag[_REFUSED] = bytes(4)
        return refused

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _keep(self, db: sqlite3.Connection, event: Event, plan: Plan) -> Accepted | Refused:
        digest = keys.event_digest(event.key)
        known = db.execute("SELECT plan FROM kept WHERE digest = ?", (digest,)).fetchone()
        if known:
            return self._accepted(event, _plan(known[0]), duplicate=True)
        for agent in plan.agents:
            row = db.execute("SELECT events FROM waiting WHERE agent = ?", (agent,)).fetchone()
            if row and row[0] >= self._pending_max(agent):
                return Refused(
                    f"{agent} has {row[0]} events waiting for the broker, its max_pending: "
                    "send it later."
                )
        payload, text = payload_of(event), _PLAN.dump_json(plan).decode()
        size = len(payload.encode(errors="replace")) + len(text) + _ROW_BYTES
        db.execute(
            "INSERT INTO kept (digest, at, size, event, plan) VALUES (?, ?, ?, ?, ?)",
            (digest, time.time(), size, payload.encode(errors="replace").decode(), text),
        )
        db.executemany(
            "INSERT INTO waiting VALUES (?, 1) "
            "ON CONFLICT (agent) DO UPDATE SET events = events + 1",
            [(agent,) for agent in plan.agents],
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

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone of all processes; synced when the block has ended well."""
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._opened()
            except sqlite3.Error as error:
                raise SpoolFull(_sentence(error)) from error
            except OSError as error:
                raise SpoolFull(_unusable(error)) from error

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self.folder / "spool.db"
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._map_flag()
            db = sqlite3.connect(
                path, timeout=_LOCKED_S, isolation_level=None, check_same_thread=False
            )
            try:
                db.execute("PRAGMA journal_mode = WAL").fetchall()
                # Each commit is synced before it returns; without this only each checkpoint is.
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA secure_delete = ON").fetchall()
                if db.execute("PRAGMA user_version").fetchone()[0] < 1:
                    db.executescript(_SCHEMA)
                    self._sync_folder()
                self._file = db.execute("SELECT file FROM total").fetchone()[0]
                # Whether anything waits was told by a flag that a power loss may have turned back.
                self._set_flag(True)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _done(self) -> int:
        """Up to where the ledger has what is in this file."""
        if self._flag is None:
            return 0
        done, file = struct.unpack("=Q16s", self._flag[_DONE])
        return int(done) if file == self._file else 0

    def _waits(self, db: sqlite3.Connection) -> bool:
        row = db.execute("SELECT EXISTS (SELECT 1 FROM kept WHERE seq > ?)", (self._done(),))
        return bool(row.fetchone()[0])

    def _sync_folder(self) -> None:
        for folder in (self.folder, self.folder.parent):
            file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(file)
            finally:
                os.close(file)

    def _map_flag(self) -> None:
        if self._flag is None:
            file = os.open(self.folder / "flag", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(file).st_size < _FLAG.size:
                    os.pwrite(file, bytes(_FLAG.size), 0)
                self._flag = mmap.mmap(file, _FLAG.size)
            finally:
                os.close(file)

    def _set_flag(self, holds: bool) -> None:
        if self._flag is not None:
            self._flag[:1] = b"\1" if holds else _EMPTY


def _plan(text: str) -> Plan:
    return _PLAN.validate_json(text)


def _full(held: Size) -> str:
    return (
        f"the spool is full with {held.events} events of {held.bytes} bytes: "
        "send it again later, or raise spool.max_events and spool.max_bytes."
    )


def _unusable(error: OSError) -> str:
    reason = error.strerror or error
    return f"the spool in fleet.data_dir cannot be used ({reason}): make room, or make it writable."


def _sentence(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if name == "SQLITE_FULL":
        return "the disk of the spool in fleet.data_dir is full: make room there."
    if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
        return "the spool in fleet.data_dir is damaged: move it away, and keep it."
    return f"the spool in fleet.data_dir cannot be used ({name}): make room, or make it writable."
