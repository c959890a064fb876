"""The log of a process that keeps content out, whatever its code and its libraries say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.fleet import ROOT
from tests.fixtures.loud_agents import ACTIONS

CANARY = "canary-4711"

SPEAKER = """
import logging, sys
from types import SimpleNamespace
from fleet.quiet_log import guard_log

guard_log()
logging.basicConfig(level="INFO", format="%(name)s: %(message)s")
logging.captureWarnings(True)
from tests.fixtures import loud_agents
try:
    loud_agents.play(SimpleNamespace(text=sys.argv[1]))
except Exception:
    logging.getLogger("fleet").exception("it raised")
    raise
"""

#: Way -> what is told of it all the same.
TOLD = {
    "raises": "ValueError",
    "chain": "RuntimeError",
    "group": "ExceptionGroup",
    "ends": "",
    "warns": "UserWarning",
    "serializes": "UserWarning",
    "thread": "ValueError",
    "process": "ValueError",
    "prints": "ValueError",
    "deletes": "ValueError",
    "logs": "mine: ValueError",
    "opens": "FileNotFoundError: No such file",
    "generates": "generated code, line 4",
    "notes": "ValueError",
    "exits-late": "ValueError",
    "mislogs": "arguments do not fit",
    "future": "ValueError",
    "asyncio": "ValueError",
}


def said(folder: Path, argument: str, script: str = SPEAKER, config: str = "") -> str:
    """All that a process prints that runs `script`."""
    (folder / "fleet.toml").write_text(f"{config}[agents.a]\nmodel = 'echo/brief'\n")
    done = subprocess.run(
        [sys.executable, "-c", script, argument],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


@pytest.mark.parametrize("way", sorted(ACTIONS.keys() - {"ends"}))
def test_no_way_of_speaking_tells_content(tmp_path: Path, way: str) -> None:
    text = said(tmp_path, f"{way} {CANARY}")
    assert CANARY not in text
    assert TOLD[way] in text
    assert "loud_agents.py" in text or "does not fit" in text or way in {"mislogs", "serializes"}


def test_content_is_told_where_it_is_asked_for(tmp_path: Path) -> None:
    assert CANARY in said(tmp_path, f"raises {CANARY}", config="[fleet]\nlog_content = true\n")


LIBRARY = """
import logging, sys
from fleet.quiet_log import guard_log

guard_log()
logging.basicConfig(level="INFO", format="%(name)s: %(message)s")
name, path, function, words, *args = eval(sys.argv[1])
place = logging.Logger.manager.getLogger(name)
import sysconfig
path = sysconfig.get_path("purelib") + "/" + path
place.handle(place.makeRecord(name, 30, path, 1, words, tuple(args), None, function))
"""

RECORDS = {
    "a dump of a message": (
        ("celery.worker.consumer.consumer", "c.py", "on_unknown_task", "type %s: %s", "x", CANARY),
        "type (left out): (left out)",
    ),
    "a task's result": (
        (
            "celery.app.trace",
            "t.py",
            "trace",
            "%(name)s in %(runtime)ss: %(return_value)s",
            {"name": "a", "runtime": 1, "return_value": CANARY},
        ),
        "a in 1s: (left out)",
    ),
    "a limit": (
        ("celery.worker.request", "r.py", "x", "after %s of %s", 3, "fleet.dispatch"),
        "after 3 of fleet.dispatch",
    ),
    "a connection": (
        ("celery.worker.consumer.consumer", "c.py", "x", "%s (%r)", "lost", ValueError(CANARY)),
        "lost (ValueError)",
    ),
    "a client": (("other", "o.py", "x", "sent %s", CANARY), "other: sent (left out)"),
    "words made before": (("other", "o.py", "x", f"sent {CANARY}"), "other: words left out"),
    "a start": (("uvicorn.error", "u.py", "x", "Started."), "uvicorn.error: Started."),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_of_a_librarys_record_its_words_stay(tmp_path: Path, kind: str) -> None:
    record, shown = RECORDS[kind]
    text = said(tmp_path, repr(record), LIBRARY)
    assert CANARY not in text
    assert shown in text
