"""Submitted events are known again; an uncertain one counts as submitted."""

import os
from pathlib import Path
from typing import Any

import pytest

from fleet.config.settings import parse
from fleet.intake.spool import submissions
from fleet.intake.spool.slots import Slot
from fleet.intake.spool.submissions import Submissions
from fleet.store import keys

AGENT = {"runner": "python", "python": "nobody:nothing"}


def digest(number: int) -> str:
    return keys.event_digest(f"source\ne{number}")


def submissions_in(folder: Path, **tables: Any) -> Submissions:
    return Submissions(folder, Slot(folder), parse({"agents": {"a": AGENT}, **tables}))


def test_another_process_knows_recorded_events(tmp_path: Path) -> None:
    mine = submissions_in(tmp_path)
    mine.record([digest(0)])
    pid = os.fork()
    if not pid:
        mine.record([digest(1), digest(2)])  # in a file of the child
        os._exit(0)
    os.waitpid(pid, 0)
    for one in (mine, submissions_in(tmp_path)):
        assert [one.has(digest(number)) for number in range(4)] == [True, True, True, False]
    files = list(tmp_path.glob("*.submitted"))
    assert len(files) == 2
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)


def test_of_other_events_few_seem_recorded(tmp_path: Path) -> None:
    one = submissions_in(tmp_path)
    one.record(digest(number) for number in range(5000))
    assert all(one.has(digest(number)) for number in range(5000))
    assert sum(one.has(digest(number)) for number in range(5000, 10000)) < 50


def test_it_is_bounded_and_forgets_the_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions, "_BYTES_MIN", 1)
    small = {
        "fleet": {"retention": {"max": 100}},
        "caps": {"max_waiting": 100},
        "spool": {"max_events": 100},
    }
    one = submissions_in(tmp_path, **small)
    size = 0
    for start in range(0, 4000, 50):
        one.record(digest(number) for number in range(start, start + 50))
        # As many as the ledger may know are known here.
        assert all(one.has(digest(number)) for number in range(max(0, start - 350), start + 50))
        size = size or sum(file.stat().st_size for file in tmp_path.iterdir())
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == size
    assert not all(one.has(digest(number)) for number in range(400))


def test_other_limits_forget_nothing(tmp_path: Path) -> None:
    before = submissions_in(tmp_path)
    before.record([digest(1)])
    after = submissions_in(tmp_path, fleet={"retention": {"max": 1_000_000}})
    after.record([digest(2)])
    assert [after.has(digest(number)) for number in (1, 2, 3)] == [True, True, False]
    assert before.has(digest(2))


def test_a_failed_record_makes_everything_uncertain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    one = submissions_in(tmp_path)
    one.record([digest(1)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        one.record([digest(2)])
    assert one.has(digest(3))
    assert submissions_in(tmp_path).has(digest(3))


def test_a_file_that_was_cut_short_leaves_every_event_unknown(tmp_path: Path) -> None:
    submissions_in(tmp_path).record([digest(0)])
    (path,) = tmp_path.glob("*.submitted")
    os.truncate(path, 100)
    assert submissions_in(tmp_path).has(digest(0))
    path.unlink()
    submissions_in(tmp_path).record([])
    path.write_bytes(b"short")
    later = submissions_in(tmp_path)
    later.record([digest(1)])  # the next process of that number fills it up
    assert later.has(digest(0))
