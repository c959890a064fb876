"""The public surface: the names that `from fleet import ...` gives, and how little it costs."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fleet
from fleet import FleetError, errors

ROOT = Path(__file__).resolve().parents[2]
#: A name that is added here is promised to users; a name that is removed breaks their code.
PUBLIC = [
    "ApiUnreachable",
    "BrokerRefusal",
    "BrokerUnavailable",
    "Cancelled",
    "ConfigError",
    "Deadline",
    "Failure",
    "FailureStage",
    "Fenced",
    "Fleet",
    "FleetError",
    "Forbidden",
    "IdempotencyConflict",
    "NotAFleet",
    "NotPossible",
    "Refused",
    "Runner",
    "SentEvent",
    "SessionBusy",
    "Settings",
    "StoreLost",
    "TokenRefused",
    "Turn",
    "TurnFailed",
    "TurnStopped",
    "Unknown",
    "load_settings",
]


def declared() -> dict[str, tuple[str, str]]:
    """The names as a type checker finds them: public name -> module and name there."""
    tree = ast.parse((ROOT / "fleet/__init__.py").read_text())
    [block] = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_public_names_are_these() -> None:
    assert fleet.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(fleet))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_name_is_at_run_time_what_a_type_checker_is_told(name: str) -> None:
    module, there = declared()[name]
    assert getattr(fleet, name) is getattr(importlib.import_module(module), there)


def test_every_error_that_a_caller_catches_is_public() -> None:
    own = {
        name
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, FleetError)
    }
    assert own <= set(PUBLIC)


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    assert not hasattr(fleet, "app")  # `celery -A fleet` looks for it before `fleet.celery`
    with pytest.raises(AttributeError, match="'fleet' has no attribute 'Nothing'"):
        _ = fleet.Nothing


def test_fleet_can_be_imported_for_nothing() -> None:
    program = "import sys; old = {*sys.modules}; import fleet; print(*{*sys.modules} - old)"
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    foreign = {name.partition(".")[0] for name in run.stdout.split()} - sys.stdlib_module_names
    assert foreign == {"fleet"}
    assert not re.search(r"\bfleet\.", run.stdout)


def test_the_documentation_imports_public_names_only() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for module, names in re.findall(
            r"^\s*from (fleet[\w.]*) import (.+)$", page.read_text(), re.M
        ):
            assert module == "fleet", page
            assert {name.strip() for name in names.split(",")} <= set(PUBLIC), page
