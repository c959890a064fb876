"""Modules of the user that have the name of the fleet's, or of a library's."""

from pathlib import Path

import pytest

from fleet.config.hidden_modules import hidden_modules
from fleet.config.settings import Settings, parse

ROOT = Path(__file__).resolve().parents[2]


def with_python(place: str) -> Settings:
    return parse({"agents": {"a": {"runner": "python", "python": place}}})


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    "name", ["fleet.py", "tasks.py", "routing.py", "tasks/__init__.py", "redis.py", "celery.py"]
)
def test_a_module_that_the_fleet_has_too_is_named(name: str, tmp_path: Path) -> None:
    put(tmp_path, name, "mine.py")
    ((fault, remedy),) = hidden_modules(with_python("mine:f"), tmp_path)
    module = name.partition("/")[0].removesuffix(".py")
    assert fault == f"{tmp_path / name}: the fleet needs another module {module}"
    assert remedy == "rename this one"


@pytest.mark.parametrize("name", ["calendar", "yaml", "pytest"])
def test_an_agents_module_that_an_installed_one_hides_is_named(name: str, tmp_path: Path) -> None:
    put(tmp_path, f"{name}.py")
    ((fault, _),) = hidden_modules(with_python(f"{name}:f"), tmp_path)
    assert fault.startswith(f"agents.a.python: {tmp_path / name}.py is hidden by the installed")


def test_what_hides_nothing_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "mine.py", "calendar.py", "tests/__init__.py", "redis/dump.rdb", "mcp/notes.txt")
    assert not list(hidden_modules(with_python("mine:f"), tmp_path))
    # Installed, and not in the folder.
    assert not list(hidden_modules(with_python("json:dumps"), tmp_path))


def test_the_fleets_own_checkout_hides_nothing() -> None:
    assert not list(hidden_modules(with_python("tests.x:f"), ROOT))
