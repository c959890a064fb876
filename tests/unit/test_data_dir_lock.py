"""One `fleet up` on one data folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.system.data_dir_lock import lock_data_dir


def test_a_second_holder_is_refused_by_the_pid_of_the_first(tmp_path: Path) -> None:
    with (
        lock_data_dir(tmp_path / "new"),
        pytest.raises(FleetError, match=rf"pid {os.getpid()}\) is already running on .*/new:"),
        lock_data_dir(tmp_path / "new"),
    ):
        pass


def test_the_folder_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with lock_data_dir(tmp_path):
            pass


HOLDER = """
import sys, time
from pathlib import Path
from fleet.system.data_dir_lock import lock_data_dir
with lock_data_dir(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(FleetError, match=rf"pid {holder.pid}\)"),
                lock_data_dir(tmp_path),
            ):
                pass
        finally:
            holder.kill()
    with lock_data_dir(tmp_path):
        pass


def test_a_program_started_meanwhile_does_not_hold_it(tmp_path: Path) -> None:
    with lock_data_dir(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with other, lock_data_dir(tmp_path):
        other.communicate(b"\n")


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FleetError, match=r"data folder .*file cannot be used \(File exists\)"),
        lock_data_dir(tmp_path / "file"),
    ):
        pass
