"""Guarded output: whatever becomes of its reader, the process that prints goes on."""

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from fleet.system.output_guard import Guarded

MANY = 20_000  #: lines; ten times a pipe

SPEAKER = f"""
import logging, sys
from fleet.system.output_guard import guard_output
guard_output()
logging.basicConfig(level="INFO", stream=sys.stderr)
for number in range({MANY}):
    print("line", number, flush=True)
    logging.info("line %d", number)
sys.exit(7)
"""


def speaker(stdout: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", SPEAKER], stdout=stdout, stderr=subprocess.STDOUT
    )


def test_a_reader_that_went_away_ends_nothing() -> None:
    with speaker(subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 7


def test_a_pipe_that_nobody_reads_holds_nothing_up() -> None:
    with speaker(subprocess.PIPE) as process:
        assert process.wait(60) == 7
        assert process.stdout is not None
        assert process.stdout.read().startswith(b"line 0\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full")
def test_a_full_disk_ends_nothing() -> None:
    with Path("/dev/full").open("wb") as full, speaker(full.fileno()) as process:
        assert process.wait(60) == 7


def test_a_terminal_that_shows_nothing_holds_nothing_up() -> None:
    ours, theirs = pty.openpty()
    with speaker(theirs) as process:
        assert process.wait(60) == 7
    os.close(theirs)
    os.close(ours)


def test_a_terminal_that_is_gone_ends_nothing() -> None:
    ours, theirs = pty.openpty()
    with speaker(theirs) as process:
        os.read(ours, 1)
        os.close(ours)
        assert process.wait(60) == 7
    os.close(theirs)


def test_a_pipe_that_must_not_block_is_as_good_as_another() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with speaker(writer) as process:
        assert process.wait(60) == 7
        assert not os.get_blocking(writer), "the flag belongs to others too"
    os.close(reader)
    os.close(writer)


def test_a_reader_in_good_health_gets_every_line() -> None:
    with speaker(subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.read().decode().splitlines()
    assert process.returncode == 7
    assert [line for line in said if line.startswith("line")] == [f"line {n}" for n in range(MANY)]
    assert len(said) == 2 * MANY


def test_when_it_flows_again_the_lines_that_are_missing_are_counted() -> None:
    reader, writer = os.pipe()
    output, given, said = Guarded(writer), 0, b""
    while not said:
        output.write(b"%d\n" % given * 20)
        given += 20
        if given > MANY * 20:
            raise AssertionError("a pipe of that size is not full")
        said = _all_of(reader) if output._dropped else b""
    output.write(b"the last\n")
    said += _all_of(reader)
    *whole, notice, last = said.decode().splitlines()
    assert last == "the last"
    missing = int(notice.split()[0].strip("("))
    assert "lines were dropped" in notice
    assert abs(given - missing - len(whole)) <= 1, "but for one cut in two"
    os.close(reader)
    os.close(writer)


def _all_of(reader: int) -> bytes:
    os.set_blocking(reader, False)
    said = b""
    with suppress(BlockingIOError):
        while piece := os.read(reader, 65536):
            said += piece
    return said
