"""The log of a process: what could not be written is counted, and said when it can be again."""

import errno
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.supervisor import output
from fleet.supervisor.output import LogFile


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Within this block a file cannot grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_line_cut_by_a_full_disk_and_those_after_it_are_counted(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "one.log")
    log.write("first")
    with room_for(10):
        for line in ("a longer line", "another"):
            with pytest.raises(OSError):
                log.write(line)
    log.write("last")
    log.write("and on")
    log.close()
    told = "(2 lines were dropped: they could not be written)"
    assert (tmp_path / "one.log").read_text().split("\n") == [
        *("first", "a lo", told, "last", "and on", "")
    ]


def test_a_folder_that_is_made_later_is_used_then(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("in its place")
    log = LogFile(tmp_path / "log" / "one.log")
    with pytest.raises(OSError) as caught:
        log.write("lost")
    assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)
    (tmp_path / "log").unlink()
    log.write("kept")
    log.close()
    assert "1 lines were dropped" in (tmp_path / "log/one.log").read_text()


def test_a_log_whose_folder_was_removed_goes_on_in_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LOG_BYTES_MAX", 4)
    log = LogFile(tmp_path / "log" / "one.log")
    log.write("first")
    (tmp_path / "log" / "one.log").unlink()
    (tmp_path / "log").rmdir()
    with pytest.raises(FileNotFoundError):
        log.write("the file cannot be set aside")
    log.write("kept")
    log.close()
    assert (tmp_path / "log/one.log").read_text().splitlines()[-1] == "kept"
