"""The spool's file between processes: nobody's lock is lost, and no name is taken from a writer."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fleet.intake.spool import file
from fleet.intake.spool.table import Spool, SpoolFull
from tests.unit.test_spool_table import event, plan, spool_in

#: Another process: keeps an event and ends, as `fleet send` does.
VISIT = """
import sys
from pathlib import Path
from tests.unit.test_spool_table import event, plan, spool_in
spool = spool_in(Path(sys.argv[1]))
spool.store([(event(int(sys.argv[2])), plan())])
spool.close()
"""
#: Another process: whether it could begin to write now.
BEGIN = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    db.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
"""
#: Another process: writes over a page, which here would cost this process its locks.
SPOIL = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]))
    file.write(b"\\xff" * 4096)
"""


def elsewhere(code: str, *args: object) -> str:
    argv = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(argv, text=True, capture_output=True, check=True, timeout=60)
    return done.stdout.strip()


def path_of(spool: Spool) -> Path:
    return spool.folder / "spool.db"


def ids(spool: Spool) -> list[str]:
    return [kept.event.id for kept in spool.first(100)]


def spoil(spool: Spool, table: str) -> None:
    """Damage one table on the disk."""
    find = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
    with spool.file.reading() as db:
        ((page,),) = db.execute(find, (table,)).fetchall()
    elsewhere(SPOIL, path_of(spool), (page - 1) * 4096)


def test_a_second_opening_in_a_process_costs_no_lock(tmp_path: Path) -> None:
    one, other = spool_in(tmp_path), spool_in(tmp_path)
    one.store([(event(1), plan())])
    with one.file.changing() as db:
        db.execute("UPDATE total SET events = events")
        assert other.size().events == 1
        assert "locked" in elsewhere(BEGIN, path_of(one))
    assert elsewhere(BEGIN, path_of(one)) == ""


def test_an_event_stored_after_another_process_closed_the_file_is_on_the_disk(
    tmp_path: Path,
) -> None:
    """A copy has what the next process finds when this one is killed now."""
    one, other = spool_in(tmp_path / "a"), spool_in(tmp_path / "a")
    one.store([(event(1), plan())])
    assert other.size().events == 1
    elsewhere(VISIT, tmp_path / "a", 2)
    one.store([(event(3), plan())])
    elsewhere(VISIT, tmp_path / "a", 4)
    other.store([(event(5), plan())])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert ids(spool_in(tmp_path / "b")) == ["e1", "e2", "e3", "e4", "e5"]
    assert ids(one) == ["e1", "e2", "e3", "e4", "e5"]


def test_a_file_that_a_fresh_check_finds_sound_is_not_set_aside(tmp_path: Path) -> None:
    """One connection alone was at fault, as after a lock was lost."""
    one = spool_in(tmp_path)
    one.store([(event(1), plan())])
    fault = sqlite3.DatabaseError("database disk image is malformed")
    fault.sqlite_errorname = "SQLITE_CORRUPT"
    with pytest.raises(SpoolFull, match="send it again"), one.file.reading():
        raise fault
    assert one.file.damaged() == []
    assert ids(one) == ["e1"]


def test_a_damaged_file_keeps_its_name_while_another_writes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "_LOCKED_S", 0.05)
    one, other = spool_in(tmp_path), spool_in(tmp_path)
    one.store([(event(1), plan())])
    with one.file.changing() as db:
        db.execute("DELETE FROM waiting")
        spoil(other, "aside")
        with pytest.raises(SpoolFull, match="another process"):
            other.quarantined()
        assert other.file.damaged() == []
    with pytest.raises(SpoolFull, match="set aside as"):
        other.quarantined()
    one.store([(event(2), plan())])
    assert ids(other) == ["e2"]


def test_a_process_that_waited_while_it_was_set_aside_does_not_write_to_the_old_file(
    tmp_path: Path,
) -> None:
    spool, begun = spool_in(tmp_path), threading.Event()
    spool.store([(event(1), plan())])
    with spool.file.reading() as db:
        db.set_trace_callback(lambda sql: begun.set() if "BEGIN" in sql else None)
    old = spool.folder / "old"
    holder = sqlite3.connect(path_of(spool), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    refused: list[SpoolFull] = []

    def keep() -> None:
        try:
            spool.store([(event(2), plan())])
        except SpoolFull as error:
            refused.append(error)

    waits = threading.Thread(target=keep)
    waits.start()
    assert begun.wait(10)
    path_of(spool).rename(old)
    holder.execute("ROLLBACK")
    waits.join(10)
    (count,) = holder.execute("SELECT count(*) FROM kept").fetchone()
    holder.close()
    assert (count, len(refused)) == (1, 1)
    spool.store([(event(2), plan())])
    assert ids(spool) == ["e2"]


def test_imports_from_an_old_file_say_nothing_of_the_new_one(tmp_path: Path) -> None:
    """It was set aside between the reading and the import."""
    spool, other = spool_in(tmp_path), spool_in(tmp_path)
    spool.store([(event(number), plan()) for number in (1, 2, 3)])
    spooled = spool.first(100)
    spoil(other, "aside")
    with pytest.raises(SpoolFull, match="set aside as"):
        other.quarantined()
    other.store([(event(4), plan())])
    spool.begin_import(spooled)
    assert not spool.mark_imported(spooled[-1].seq)
    assert ids(spool) == ["e4"]
    assert spool.holds


def test_a_file_with_a_write_ahead_log_of_an_older_version_is_read(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "a")
    spool.store([(event(1), plan())])
    db = sqlite3.connect(path_of(spool), isolation_level=None)
    spool.close()
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("INSERT INTO kept SELECT 2, 'd', at, size, event, plan FROM kept")
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # as if that process was killed now
    db.close()
    found = spool_in(tmp_path / "b")
    assert ids(found) == ["e1", "e1"]
    found.store([(event(3), plan())])
    assert not (found.folder / "spool.db-wal").exists()
    assert ids(found) == ["e1", "e1", "e3"]
