"""Submitted events are known again; an uncertain one counts as submitted."""

import os
from pathlib import Path

from fleet.intake.spool.submission_log import SubmissionLog
from fleet.store import keys


def digest(number: int) -> str:
    return keys.event_digest(f"source\ne{number}")


def test_another_process_knows_recorded_events(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        SubmissionLog(tmp_path).record([digest(1), digest(2)])
        os._exit(0)
    os.waitpid(pid, 0)
    offered = SubmissionLog(tmp_path)
    assert [offered.has(digest(number)) for number in (1, 2, 3)] == [True, True, False]
    assert (tmp_path / "offered").stat().st_mode & 0o077 == 0


def test_it_is_bounded_and_the_file_before_still_counts(tmp_path: Path) -> None:
    offered, other = SubmissionLog(tmp_path, bytes_max=200), SubmissionLog(tmp_path, bytes_max=200)
    for number in range(95):
        (offered if number % 2 else other).record([digest(number)])
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2 * 220
    assert offered.has(digest(94))
    assert other.has(digest(88))
    assert not offered.has(digest(0))


def test_a_failed_record_makes_everything_uncertain(tmp_path: Path) -> None:
    offered = SubmissionLog(tmp_path)
    offered.record([digest(1)])
    os.close(offered._fd)  # the next write fails, as on a disk that is full
    offered.record([digest(2)])
    assert offered.has(digest(3))
    assert SubmissionLog(tmp_path).has(digest(3))
