"""A command whose standard files are closed, or on a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FLEET = Path(sys.executable).with_name("fleet")


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_whose_standard_files_are_closed(tmp_path: Path, closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" route hi {closed}', FLEET],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [["route", "hi"], ["--help"], ["--version"]])
def test_a_full_disk_under_the_output_is_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [FLEET, *arguments], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, check=False
        )
    sentence = b"fleet: the output cannot be written: No space left on device.\n"
    assert (done.returncode, done.stderr) == (1, sentence)
