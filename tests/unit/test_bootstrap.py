"""The first step of `make`: an environment that matches the lock, made only when needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Stands for uv: writes down how it was called, and makes what `uv venv` makes.
UV = """#!/bin/sh
echo "$1 $2" >> "$(dirname "$0")/calls"
case "$1" in venv) mkdir -p .venv/bin && : > .venv/bin/python ;; esac
test ! -e "$(dirname "$0")/broken-$1"
"""


class Clone:
    """A checkout with the files that bootstrap.py reads, and a PATH that holds nothing but `uv`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder / "clone", folder / "path"
        (self.folder / "compose").mkdir(parents=True)
        self.path.mkdir()
        for name in ("bootstrap.py", "pyproject.toml", "compose/requirements.lock"):
            shutil.copy(ROOT / name, self.folder / name)
        (self.path / "uv").write_text(UV)
        (self.path / "uv").chmod(0o755)

    def bootstrap(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, self.folder / "bootstrap.py"],
            capture_output=True,
            text=True,
            env={"PATH": f"{self.path}:{os.defpath}", **environment},
        )

    def installs(self) -> list[str]:
        """The requests to uv since the last time, without those for its version."""
        calls = self.path / "calls"
        done = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return [call for call in done if not call.startswith("--version")]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_a_second_run_finds_all_done(clone: Clone) -> None:
    assert clone.bootstrap().returncode == 0
    assert clone.installs() == ["venv --quiet", "pip sync", "pip install"]
    assert clone.bootstrap().returncode == 0
    assert clone.installs() == []


def test_a_changed_lock_installs_again(clone: Clone) -> None:
    clone.bootstrap()
    clone.installs()
    append(clone.folder / "compose" / "requirements.lock", "\n")
    assert clone.bootstrap().returncode == 0
    assert clone.installs() == ["venv --quiet", "pip sync", "pip install"]


def test_a_changed_project_installs_the_project_only(clone: Clone) -> None:
    clone.bootstrap()
    clone.installs()
    append(clone.folder / "pyproject.toml", "\n")
    assert clone.bootstrap().returncode == 0
    assert clone.installs() == ["pip install"]


def test_a_run_that_failed_is_repeated_from_the_start(clone: Clone) -> None:
    clone.bootstrap()
    clone.installs()
    append(clone.folder / "compose" / "requirements.lock", "\n")
    (clone.path / "broken-pip").touch()
    (clone.path / "broken-venv").touch()
    without_pip = clone.bootstrap(PYTHONPATH=str(crippled_python(clone)))
    assert without_pip.returncode == 1
    (clone.path / "broken-pip").unlink()
    (clone.path / "broken-venv").unlink()
    clone.installs()
    assert clone.bootstrap().returncode == 0
    assert clone.installs() == ["venv --quiet", "pip sync", "pip install"]


def test_debian_without_venv_is_told_what_to_install(clone: Clone) -> None:
    (clone.path / "broken---version").touch()
    ran = clone.bootstrap(PYTHONPATH=str(crippled_python(clone)))
    assert ran.returncode == 1
    assert "apt-get install python3-venv" in ran.stderr.splitlines()[-1]
    assert clone.installs() == [], "an empty shim of a version manager is not taken for uv"


def crippled_python(clone: Clone) -> Path:
    """A PYTHONPATH under which `ensurepip` cannot be found, as in Debian's bare python3."""
    folder = clone.path / "site"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text("import sys; sys.modules['ensurepip'] = None")
    return folder


def test_each_stage_says_what_comes(clone: Clone) -> None:
    (clone.folder / "compose" / "requirements.lock").write_text(
        "one==1 \\\n    --hash=sha256:0\ntwo==2 ; python_version < '3.12' \\\n    --hash=sha256:1\n"
    )
    lines = clone.bootstrap().stderr.splitlines()
    assert lines[0].startswith("bootstrap: installing about 2 packages with uv: ")
    assert lines[1:] == ["bootstrap: installing this project ...", "bootstrap: ready"]
