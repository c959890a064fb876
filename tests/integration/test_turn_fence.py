"""`turn.fence` lets a database or a file refuse a holder that was stopped and goes on."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.locks import SessionLock
from fleet.store import Store
from tests.fixtures.fleet import READY, Fleet, fleet_of
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.processes import gone, no_leftovers, wait_until

__all__ = ["no_leftovers"]

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/python.md"


def recipe(title: str) -> str:
    """A file of the guide."""
    found = re.search(
        rf'^```\w+ title="{re.escape(title)}"\n(.*?)^```', GUIDE.read_text(), re.M | re.S
    )
    assert found
    return found[1]


def test_it_grows_with_every_attempt_of_whichever_agent(store: Store) -> None:
    books = Books(store, settings_for("a", "b", retry={"backoff_s": 0, "min_age_s": 0}))
    fences = []
    for agent in ("a", "b", "a"):
        books.accept(agent, session="s")
        lease = books.held(agent)
        claim = books.claimed(lease)
        fences.append(claim.turn_fence)
        books.fail(claim)
        books.reclaim()
        claim = books.claimed(lease)
        fences.append(claim.turn_fence)
        books.complete(claim)
        lease.release()
    assert fences == sorted(set(fences))


def test_an_emptied_store_gives_none_again(store: Store) -> None:
    """Nor does one that has lost its last writes: a lock's tokens are of the same kind."""

    def given() -> list[int]:
        books = Books(store, settings_for("a"))
        books.accept()
        with SessionLock(store, "s", "turn") as lock:
            return [books.claimed(books.held()).turn_fence, lock.token]

    before = given()
    store.client.flushall()
    assert all(late > early for early, late in zip(before, given(), strict=True))


def test_the_row_takes_no_late_write() -> None:
    """The statements are PostgreSQL's; SQLite reads them too."""
    guard, update = (part.strip() for part in recipe("guard.sql").strip().split("\n\n"))
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE account (id text PRIMARY KEY, balance bigint)")
    database.execute("INSERT INTO account VALUES ('ann', 0)")
    database.execute(guard)

    def write(balance: int, fence: int) -> int:
        values = {"id": "ann", "balance": balance, "fence": fence}
        return database.execute(update, values).rowcount

    assert [write(10, 7), write(11, 7), write(12, 9), write(13, 7)] == [1, 1, 1, 0]
    assert database.execute("SELECT balance, fence FROM account").fetchall() == [(12, 9)]


WRITER = "import sys, guarded; input(); guarded.write('memory.txt', int(sys.argv[1]), sys.argv[2])"


def test_the_file_takes_no_late_write(tmp_path: Path, no_leftovers: str) -> None:
    (tmp_path / "guarded.py").write_text(recipe("guarded.py"))

    def writer(fence: int, text: str) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-c", WRITER, str(fence), text]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, cwd=tmp_path, stdin=pipe, stderr=pipe, text=True)

    with writer(7, "early") as early, writer(9, "late") as late:
        early.send_signal(signal.SIGSTOP)
        early.stdin.write("\n")  # type: ignore[union-attr]
        late.communicate("\n")
        assert late.returncode == 0
        early.send_signal(signal.SIGCONT)
        _, error = early.communicate()
    assert early.returncode == 1
    assert "Late: a later turn has written memory.txt" in error
    assert (tmp_path / "memory.txt").read_text() == "late"


@pytest.fixture
def fleet(no_leftovers: str, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, {"a": {}, "b": {}}) as fleet:
        (tmp_path / "guarded.py").write_text(recipe("guarded.py"))
        yield fleet


def test_a_stopped_holder_that_goes_on(fleet: Fleet) -> None:
    """Stopped in mid-turn, replaced, continued: what it wrote last is not what stays."""
    first = fleet.send("a", "guarded open", session="s")
    later = fleet.send("b", "say it", session="s")
    holder, _ = fleet.ready("a", "b")
    fleet.wait_started(first)
    memory = fleet.folder / "memory.txt"
    wait_until(lambda: memory.exists() and memory.read_text() == "begun by 1")
    (child,) = holder.children()
    for pid in (holder.pid, child):
        os.kill(pid, signal.SIGSTOP)
    try:
        fleet.worker("a", "-n", "another@%h").wait_said(READY)
        fleet.wait_started(first, times=2)
        fleet.open_gate("open")
        fleet.wait_state(later, "completed")
    finally:
        for pid in (child, holder.pid):
            if not gone(pid):
                os.kill(pid, signal.SIGCONT)
    holder.wait()
    assert memory.read_text() == "ended by 2"
    fences = [int(turn["fence"]) for turn in fleet.diary("start")]
    assert len(fences) == 3
    assert fences == sorted(set(fences))
