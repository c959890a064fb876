"""The list of tests that may fail names tests that there are, each with a reason."""

import os
import subprocess
import sys
from pathlib import Path

from tests.quarantine import QUARANTINE

ROOT = Path(__file__).resolve().parents[2]
CONFTEST = """
from tests.conftest import pytest_collection_modifyitems, pytest_report_header
from tests.quarantine import QUARANTINE

QUARANTINE["test_it.py::test_flaky"] = "the clock is coarse"
"""
TESTS = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_flaky(number):
    assert number == 1

def test_broken():
    assert False
"""


def test_each_entry_is_a_test_with_a_reason() -> None:
    for name, reason in QUARANTINE.items():
        path, *_, test = name.split("::")
        assert f"def {test}(" in (ROOT / path).read_text(), f"{name} is gone: take it off the list"
        assert reason


def test_only_a_quarantined_test_may_fail_and_the_list_is_printed(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    argv = [sys.executable, "-m", "pytest", "-p", "no:valkey", "-p", "no:schemathesis", "-v"]
    done = subprocess.run(
        [*argv, "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "quarantine: test_it.py::test_flaky: the clock is coarse" in done.stdout
    assert "1 failed, 1 xfailed, 1 xpassed" in done.stdout
