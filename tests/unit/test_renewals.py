"""The workers that a reload replaces: those whose own settings, or whose code, changed."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.config.settings import Settings, parse
from fleet.supervisor.renewals import changed_code, renewal

CODED = {"runner": "python", "python": "mine:answer"}
MODEL = {"model": "echo/brief"}
#: Starts of workers: before everything, and after it.
LONG_AGO, LATER = 1.0, time.time() + 3600


def settings(**more: Any) -> Settings:
    return parse({"agents": {"coded": CODED, "model": MODEL}, **more})


def replaced(now: Settings, born_at: float = LATER) -> set[str]:
    """The agents whose workers give way."""
    must_leave = renewal(settings(), now)
    return {name for name in ("coded", "model") if must_leave(f"agent.{name}", born_at)}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("more", "agents"),
    [
        ({}, set()),
        ({"agents": {"coded": CODED, "model": {**MODEL, "instructions": "Be brief."}}}, {"model"}),
        ({"agents": {"coded": CODED, "model": {**MODEL, "max_pending": 3}}}, {"coded", "model"}),
        ({"agents": {"coded": CODED, "model": MODEL, "new": MODEL}}, {"coded", "model"}),
        ({"alerts": {"webhook": "https://example.com/x"}}, set()),
        ({"routes": {"default": ["coded"]}}, {"coded", "model"}),
    ],
    ids=["nothing", "own", "others read it", "another agent", "no worker reads it", "no agent's"],
)
def test_a_worker_gives_way_for_what_it_reads(more: dict[str, Any], agents: set[str]) -> None:
    assert replaced(settings(**more)) == agents


def test_a_worker_gives_way_for_code_that_changed_after_its_start(here: Path) -> None:
    (here / "mine.py").write_text("def answer(turn): ...")
    assert replaced(settings(), LONG_AGO) == {"coded"}
    assert replaced(settings(), LATER) == set()


def test_a_removed_agent_s_worker_always_leaves() -> None:
    assert renewal(settings(), settings())("agent.gone", LATER)


def test_changed_code_is_found_by_when_it_came_though_its_times_are_old(here: Path) -> None:
    (here / "deep" / "er").mkdir(parents=True)
    for name in ("mine.py", "deep/er/helper.py"):
        (here / name).write_text("")
        os.utime(here / name, (1, 1))  # as `cp -p` and `rsync -a` leave them
    for folder in (".hidden", "node_modules", "venv"):
        (here / folder).mkdir()
        (here / folder / "other.py").write_text("")
    (here / "venv" / "pyvenv.cfg").write_text("")
    (here / "notes.txt").write_text("")
    found = changed_code(settings(), LONG_AGO)
    assert {str(path) for path in found} == {"mine.py", "deep/er/helper.py"}
    assert changed_code(settings(), max(found.values())) == {}


def test_without_an_agent_that_runs_code_no_file_counts(here: Path) -> None:
    (here / "mine.py").write_text("")
    assert changed_code(parse({"agents": {"model": MODEL}}), LONG_AGO) == {}
