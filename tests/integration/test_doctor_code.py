"""The agents' code is imported in a process of its own, which may hang, print, or end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.broker.audit import Finding
from fleet.config.settings import parse
from fleet.ops.doctor import code, startup
from tests.fixtures.processes import gone, no_leftovers, wait_until

__all__ = ["no_leftovers"]

MODULES = {
    "good": "def answer(turn) -> 'dict[str, int] | None':\n    return None",
    "loud": "import sys\nprint('hush' * 100000)\nsys.stdin.read()\nanswer = str",
    "number": "answer = 7",
    "two": "def answer(turn, more): ...",
    "client": "class Client: ...\ndef answer(turn) -> 'str | Client': ...",
    "lacks": "import no_such_module",
    "wrong": "def answer(turn:",
    "raises": "raise ValueError('hush')",
    "leaves": "raise SystemExit('hush')",
    "ends": "import os\nos._exit(0)",
    "hangs": """
import pathlib, subprocess, sys, time
started = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])
pathlib.Path('started').write_text(str(started.pid))
time.sleep(100)
""",
}

Findings = Callable[..., dict[str, Finding]]


@pytest.fixture
def findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Findings:
    """The findings about agents with these modules, by agent."""
    monkeypatch.chdir(tmp_path)
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)

    def found(*modules: str, name: str = "answer") -> dict[str, Finding]:
        agents = {one: {"runner": "python", "python": f"{one}:{name}"} for one in modules}
        return {one.what.split(".")[1]: one for one in startup.findings(parse({"agents": agents}))}

    return found


def test_each_fault_is_told_of_its_agent_and_no_content_with_it(findings: Findings) -> None:
    found = findings(*(name for name in MODULES if name != "hangs"))
    assert {name: one.level for name, one in found.items()} == {
        "number": "error",
        "two": "error",
        "client": "warning",
        "lacks": "error",
        "wrong": "error",
        "raises": "warning",
        "leaves": "warning",
        "ends": "warning",
    }
    for name, words in {
        "number": "agents.number.python: number:answer is int, which cannot be called",
        "two": "cannot be called with a turn alone: missing a required argument: 'more'",
        "client": "returns Client: an answer is text",
        "lacks": "cannot be imported: No module named 'no_such_module'",
        "wrong": "wrong.py, line 1",
        "raises": "raises ValueError when it is imported in ",
        "leaves": "raises SystemExit",
        "ends": "ends the process that imports it",
    }.items():
        assert words in found[name].what
        assert "hush" not in found[name].what


def test_a_name_that_is_not_there_is_guessed(findings: Findings) -> None:
    assert "good:anser has no anser, but has answer" in findings("good", name="anser")["good"].what
    (absent,) = findings("absent").values()
    assert (absent.level, absent.what) == (
        "error",
        "agents.absent.python: there is no module 'absent:answer'",
    )


def test_an_import_that_hangs_is_ended_with_all_that_it_started(
    findings: Findings, monkeypatch: pytest.MonkeyPatch, no_leftovers: str
) -> None:
    monkeypatch.setattr(code, "IMPORT_TIMEOUT_S", 2.0)
    found = findings("hangs", "number")
    assert found["hangs"].what.endswith("hangs:answer is not imported after 2 s")
    assert found["hangs"].level == "warning"
    assert "number" in found, "the next one is imported all the same"
    wait_until(lambda: gone(int(Path("started").read_text())))


def test_a_set_of_tools_is_checked_as_a_turn_would(tmp_path: Path, findings: Findings) -> None:
    (tmp_path / "shop.py").write_text("def price(item: str): ...\ntools = [price]\nother = price")
    agents = {"a": {"model": "echo/brief", "tools": ["good", "bad"]}}
    tools = {"good": {"python": "shop:tools"}, "bad": {"python": "shop:other"}}
    (found,) = startup.findings(parse({"agents": agents, "tools": tools}))
    assert found.level == "error"
    assert "tools.bad.python: shop:other must be a list of functions or an instance" in found.what
