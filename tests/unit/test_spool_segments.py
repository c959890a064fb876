"""Segments of records: what is cut short, damaged, full, set aside or deleted."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.intake.spool import segments
from fleet.intake.spool.segments import (
    SegmentReader,
    SegmentWriter,
    encode,
    read_body,
    read_segment,
)
from fleet.intake.spool.slots import Slot
from fleet.system import file_lock


class Folder:
    """A folder of segments."""

    def __init__(self, path: Path) -> None:
        self.path = path / "segments"
        self.path.mkdir()
        self.slots = path / "slots"
        self.writer = SegmentWriter(self.path, Slot(self.slots))
        self.reader = SegmentReader(self.path)

    def add(self, *seqs: int) -> None:
        self.writer.append([line(seq) for seq in seqs])

    def files(self) -> list[Path]:
        return sorted(self.path.iterdir())

    def read(self, imported: int = 0) -> list[int]:
        return [record.meta["seq"] for record in self.reader.read(imported)[1]]

    def every(self) -> list[int]:
        return sorted(one.meta["seq"] for one in SegmentReader(self.path).read(0)[1])


def line(seq: int) -> bytes:
    return encode({"k": "event", "seq": seq}, b"body %d" % seq)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def fail(patch: pytest.MonkeyPatch, name: str, do: Callable[..., Any]) -> None:
    """Replace one call of `os`, once."""
    before = getattr(os, name)

    def once(*args: Any) -> Any:
        patch.setattr(os, name, before)
        return do(before, *args)

    patch.setattr(os, name, once)


def no_space(*_args: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_reader_gets_each_record_once_with_its_body(folder: Folder) -> None:
    folder.add(1, 2)
    _, records = folder.reader.read(0)
    assert [read_body(record) for record in records] == [b"body 1", b"body 2"]
    folder.add(3)
    assert folder.read() == [3]
    assert folder.read() == []


def test_a_torn_tail_counts_as_never_written_and_nothing_comes_behind_it(folder: Folder) -> None:
    folder.add(1)
    [torn] = folder.files()
    torn.write_bytes(torn.read_bytes() + line(2)[:-1])
    assert folder.read() == [1]
    folder.add(3)
    assert len(folder.files()) == 2
    assert folder.read() == [3]
    assert not folder.reader.damaged


def test_a_damaged_line_costs_that_record_alone(folder: Folder) -> None:
    folder.add(1, 2, 3)
    [path] = folder.files()
    path.write_bytes(path.read_bytes().replace(b"body 2", b"bodY 2"))
    assert [record.meta["seq"] for record in read_segment(path)] == [1, 3]
    assert folder.read() == [1, 3]
    assert folder.reader.up_to(3) == [(path, True)]


def test_a_full_disk_stores_all_of_a_batch_or_none(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.add(1)
    cut = len(line(2)) + 5
    fail(monkeypatch, "write", lambda write, fd, data: write(fd, data[:cut]))
    with pytest.raises(OSError, match="No space"):
        folder.add(2, 3)
    assert folder.every() == [1]
    folder.add(4)
    assert folder.every() == [1, 4]


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_reader_forgets_what_it_saw_of_a_failed_write(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def seen(do: Callable[..., Any], fd: int, data: bytes = b"") -> None:
        if data:
            do(fd, data[: len(line(2))])
        assert folder.read() == [1, 2]
        no_space()

    def short(write: Callable[..., int], fd: int, data: bytes) -> int:
        done = write(fd, data[: len(line(2)) + 5])
        assert folder.read() == [1, 2]
        return done

    folder.add(1)
    fail(monkeypatch, failing, short if failing == "write" else seen)
    with pytest.raises(OSError, match="No space"):
        folder.add(*([2, 3] if failing == "write" else [2]))
    folder.add(9)
    again, records = folder.reader.read(0)
    assert again
    assert sorted(record.meta["seq"] for record in records) == [1, 9]


def test_a_full_segment_is_followed_by_another(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "ROTATE_BYTES", 2 * len(line(1)))
    for seq in range(1, 6):
        folder.add(seq)
    assert len(folder.files()) == 3
    assert folder.read() == [1, 2, 3, 4, 5]
    assert sorted(folder.reader.up_to(4)) == [(path, False) for path in folder.files()[:2]]


def test_a_file_deleted_or_set_aside_under_its_writer_gets_no_more_records(
    folder: Folder, tmp_path: Path
) -> None:
    folder.add(1)
    folder.files()[0].unlink()
    folder.add(2)
    assert folder.every() == [2]
    folder.files()[0].rename(tmp_path / "aside")
    folder.add(3)
    assert folder.every() == [3]


def test_a_new_file_is_not_taken_for_the_deleted_one(folder: Folder) -> None:
    folder.add(1)
    assert folder.read() == [1]
    [old] = folder.files()
    old.unlink()
    folder.add(2, 3)
    [new] = folder.files()
    assert new != old, "with the same inode it would be read from the middle"
    assert folder.read(imported=1) == [2, 3]


def test_a_segment_that_is_gone_before_its_import_is_forgotten(folder: Folder) -> None:
    folder.add(1)
    assert folder.read() == [1]
    folder.files()[0].unlink()
    assert folder.reader.read(0) == (True, [])


def test_a_read_that_failed_is_made_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.add(1)
    other = SegmentWriter(folder.path, Slot(folder.slots))
    other.append([line(2)])
    whole, last = segments._read_on, folder.files()[-1]

    def failing(path: Path, was: Any) -> Any:
        if path == last:
            raise OSError(24, "Too many open files")
        return whole(path, was)

    with monkeypatch.context() as patch:
        patch.setattr(segments, "_read_on", failing)
        with pytest.raises(OSError, match="Too many"):
            folder.read()
    assert folder.read() == [1, 2]


def test_the_name_of_a_new_segment_is_synced_before_a_record_is_in_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[str]()
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    fail(monkeypatch, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        folder.add(1)
    monkeypatch.setattr(os, "fsync", note)
    folder.add(2)
    [path] = folder.files()
    assert synced == [str(one) for one in (folder.path, *folder.path.parents[:2], path)]


def test_a_forked_child_takes_another_slot(folder: Folder) -> None:
    folder.add(1)
    child = os.fork()
    if not child:
        folder.add(2)
        os._exit(len(folder.files()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    folder.add(3)
    assert folder.every() == [1, 2, 3]


def test_a_killed_process_leaves_its_slot_and_its_segment_to_the_next(folder: Folder) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        folder.add(1)
        os.write(writer, b"1")
        signal.pause()
        os._exit(0)
    assert os.read(reader, 1) == b"1"
    assert file_lock.is_held(folder.slots / "0.lock")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    folder.add(2)
    assert len(folder.files()) == 1
    assert folder.every() == [1, 2]
