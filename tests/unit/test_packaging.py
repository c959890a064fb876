"""The locks say exactly what pyproject.toml asks for, and the environment holds nothing more."""

import re
import sysconfig
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

#: A .pth file runs at every start of Python, which is how a poisoned LiteLLM release did its work.
PTH_ALLOWED = {
    "_editable_impl_agent_fleet.pth",  # this project, editable
    "_virtualenv.pth",  # uv's and virtualenv's environments
    "distutils-precedence.pth",  # setuptools
}


def locked(name: str) -> dict[str, Version]:
    """Each package in a lock and its version."""
    text = (ROOT / "compose" / name).read_text()
    pins = re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in pins}


def asked(*groups: str) -> list[Requirement]:
    """The requirements of pyproject.toml, with the groups named and those they include."""
    lines = [*PROJECT["project"]["dependencies"]]
    for group in groups:
        lines += [line for line in PROJECT["dependency-groups"][group] if isinstance(line, str)]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(
    ("lock", "groups"), [("requirements.lock", ("build", "dev")), ("runtime.lock", ("build",))]
)
def test_the_lock_answers_the_project(lock: str, groups: tuple[str, ...]) -> None:
    pins = locked(lock)
    wrong = [str(want) for want in asked(*groups) if pins.get(canonicalize_name(want.name)) is None]
    assert not wrong, "not in the lock: run `make lock`"
    outside = [
        str(want)
        for want in asked(*groups)
        if not want.specifier.contains(pins[canonicalize_name(want.name)])
    ]
    assert not outside, "the lock breaks these bounds: run `make lock`"


def test_the_image_runs_what_was_tested() -> None:
    assert locked("runtime.lock").items() <= locked("requirements.lock").items()


@pytest.mark.parametrize("lock", ["requirements.lock", "runtime.lock"])
def test_a_lock_says_nothing_of_where_packages_came_from(lock: str) -> None:
    text = (ROOT / "compose" / lock).read_text()
    assert not re.findall(r"^.*(?:://|index|find-links|file:|#).*$", text, re.MULTILINE)
    unhashed = [
        block for block in re.split(r"\n(?=\S)", text.strip()) if "--hash=sha256:" not in block
    ]
    assert not unhashed


@pytest.mark.parametrize("installer", ["pip", "setuptools"])
def test_what_installs_packages_is_of_the_lock_itself(installer: str) -> None:
    lock = (ROOT / "compose" / "requirements.lock").read_text()
    assert re.findall(rf"^{installer}==(\S+)", lock, re.MULTILINE) == [version(installer)]


def test_no_package_runs_code_at_every_start_of_python() -> None:
    found = {path.name for path in Path(sysconfig.get_path("purelib")).glob("*.pth")}
    assert found <= PTH_ALLOWED
