"""The spool's file: SQLite, synced with each change; a damaged file is set aside.

Two rules isolate the processes that share the file. Only SQLite opens and closes it: POSIX locks
belong to a process, and the kernel drops them all when that process closes any descriptor of the
file. The journal is a rollback journal, of which nothing outlives a transaction. A write-ahead log
is deleted by a process that believes to be the last, even while other processes write to it.
"""

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from fleet.errors import BrokerUnavailable
from fleet.intake.spool.flag import Flag

logger = logging.getLogger(__name__)

#: `kept` are the events in order. `run` are the dispatches of events that may run before the ledger
#: has them, `step` is their journal. `aside` holds the quarantined events.
_SCHEMA = """
BEGIN IMMEDIATE;
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
CREATE TABLE IF NOT EXISTS run (
  dispatch TEXT PRIMARY KEY, seq INTEGER NOT NULL, agent TEXT NOT NULL, priority INTEGER NOT NULL,
  state TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, losses INTEGER NOT NULL DEFAULT 0,
  fence INTEGER NOT NULL DEFAULT 0, holder TEXT NOT NULL DEFAULT '', started REAL, ended REAL,
  ending TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS run_seq ON run (seq);
CREATE INDEX IF NOT EXISTS run_next ON run (state, agent);
CREATE TABLE IF NOT EXISTS step (
  dispatch TEXT NOT NULL, key TEXT NOT NULL, entry TEXT NOT NULL, PRIMARY KEY (dispatch, key)
) STRICT;
CREATE TABLE IF NOT EXISTS aside (
  digest TEXT PRIMARY KEY, at REAL NOT NULL, event TEXT NOT NULL, plan TEXT NOT NULL,
  reason TEXT NOT NULL
) STRICT;
PRAGMA user_version = 2;
COMMIT;
"""
_VERSION = 2
#: Longer than the milliseconds of another process's batch.
_LOCKED_S = 5.0
#: The name of a damaged file, before the time.
DAMAGED = "spool.db.damaged-"
_JUST_SET_ASIDE = "the spool in fleet.data_dir was just set aside as damaged: send it again."
#: Files beside it during a write, or after a process died in one; `-wal` of old versions only.
_TAILS = ("-journal", "-wal", "-shm")


class SpoolFull(BrokerUnavailable):
    """The spool accepts nothing: nothing was stored."""


class SpoolFile:
    """Safe to share between threads, and between processes on one data folder; not over a fork.

    Every method raises SpoolFull with one sentence when the file cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.flag = Flag(folder)
        self._path = folder / "spool.db"
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._name = b""  #: tells a new file from the one before it

    @property
    def exists(self) -> bool:
        """False until an event was ever stored."""
        return self._path.exists()

    @property
    def is_open(self) -> bool:
        """True while this process has the file open."""
        return self._db is not None

    @property
    def name(self) -> bytes:
        """The random name of this file, known once it is open."""
        return self._name

    @property
    def imported(self) -> int:
        """The last event that the ledger has."""
        return self.flag.imported(self._name)

    @property
    def submitted(self) -> int:
        """The last event that the ledger may have."""
        return max(self.imported, self.flag.submitted(self._name))

    def open_flag(self) -> None:
        """Map the flag, once."""
        with self._lock:
            self.flag.open()

    def prepare(self) -> None:
        """Make the folder and the flag now."""
        with usable():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.open_flag()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone of all processes; synced when the block ends without an error."""
        with self.alone() as db:
            yield db
            db.execute("COMMIT")

    @contextmanager
    def alone(self) -> Iterator[sqlite3.Connection]:
        """The open file, while no other process changes it; uncommitted changes are undone."""
        with self.reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                # Setting it aside needs the same lock: from here on the file keeps its name.
                if self._inode != _inode(self._path):
                    raise SpoolFull(_JUST_SET_ASIDE)
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The open file, for this thread alone."""
        with self._lock, usable():
            try:
                yield self._opened()
            except sqlite3.Error as error:
                if _is_damage(error):
                    raise SpoolFull(self._set_aside()) from error
                raise SpoolFull(_sentence(error)) from error

    def waits(self, db: sqlite3.Connection) -> bool:
        """True while it holds an event that the ledger does not have."""
        row = db.execute("SELECT EXISTS (SELECT 1 FROM kept WHERE seq > ?)", (self.imported,))
        return bool(row.fetchone()[0])

    def damaged(self) -> list[str]:
        """The names of the damaged files here, which may hold events."""
        return sorted(path.name for path in self.folder.glob(f"{DAMAGED}*"))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
            self._last_will.detach()

    def _opened(self) -> sqlite3.Connection:
        if self._db is not None and self._inode != _inode(self._path):
            self._close()  # another process has set it aside
        if self._db is None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileExistsError):
                # Private to this user. Never closed again: see the head of this module.
                os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._inode = _inode(self._path)
            self.flag.open()
            self._db = self._connect()
            self._last_will = weakref.finalize(self, self._db.close)
            # A forked child that exits must not close its parent's file.
            self._last_will.atexit = False
        return self._db

    def _connect(self) -> sqlite3.Connection:
        db = _connect(self._path)
        try:
            db.execute("PRAGMA journal_mode = DELETE").fetchall()
            # Each commit is synced before it returns, with the removal of its journal.
            db.execute("PRAGMA synchronous = EXTRA")
            db.execute("PRAGMA secure_delete = ON").fetchall()
            if db.execute("PRAGMA user_version").fetchone()[0] < _VERSION:
                db.executescript(_SCHEMA)
                self._sync_folder()
            self._name = db.execute("SELECT file FROM total").fetchone()[0]
            # A power loss may have turned back the flag: look again.
            self.flag.holds = True
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self) -> str:
        """Rename a damaged file, for a person to examine; returns a sentence about it.

        Only a file that a fresh check finds damaged too, and while no process writes to it.
        """
        self._close()
        try:
            with closing(_connect(self._path)) as db:
                if not _is_damaged(db):
                    return "the spool in fleet.data_dir could not be read: send it again."
                # Not a file that another process has begun since.
                if _inode(self._path) != self._inode:
                    return _JUST_SET_ASIDE
                name = f"{DAMAGED}{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
                # The file itself last: a new one must not find a foreign journal.
                for tail in (*_TAILS, ""):
                    with suppress(FileNotFoundError):
                        (self.folder / f"spool.db{tail}").rename(self.folder / f"{name}{tail}")
        except sqlite3.Error as error:
            return f"the spool in fleet.data_dir is damaged, and {_sentence(error)}"
        except OSError as error:
            return f"the spool in fleet.data_dir is damaged, and {_unusable(error)}"
        sentence = (
            f"the spool in fleet.data_dir was damaged and is set aside as {name}: events may be in "
            "it; keep it, and send again."
        )
        logger.error("%s", sentence)
        return sentence

    def _sync_folder(self) -> None:
        for folder in (self.folder, self.folder.parent):
            file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(file)
            finally:
                os.close(file)


@contextmanager
def usable() -> Iterator[None]:
    """Raise SpoolFull where an OSError ends the block."""
    try:
        yield
    except OSError as error:
        raise SpoolFull(_unusable(error)) from error


def _unusable(error: OSError) -> str:
    """The fault of a file or folder of the spool, and its remedy."""
    reason = error.strerror or error
    return f"the spool in fleet.data_dir cannot be used ({reason}): make room, or make it writable."


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _connect(path: Path) -> sqlite3.Connection:
    """Open an existing file. Raises sqlite3.Error."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_LOCKED_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _is_damaged(db: sqlite3.Connection) -> bool:
    """Check the whole file. No other process writes to it until `db` is closed."""
    try:
        db.execute("BEGIN IMMEDIATE")
        return bool(db.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",))
    except sqlite3.DatabaseError as error:
        if _is_damage(error):
            return True
        raise


def _is_damage(error: sqlite3.Error) -> bool:
    # A fault of the file, not of a query.
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def _sentence(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if name == "SQLITE_FULL":
        return "the disk of the spool in fleet.data_dir is full: make room there."
    if name == "SQLITE_BUSY":
        return "the spool in fleet.data_dir stays locked by another process: send it again."
    return f"the spool in fleet.data_dir cannot be used ({name}): make room, or make it writable."
