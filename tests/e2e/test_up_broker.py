"""The embedded broker's socket, as Flower and a worker in another shell find it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import HEAD, Place, place
from tests.fixtures.processes import wait_until

pytestmark = pytest.mark.timeout(180)

CODE = """
import time
from pathlib import Path

def play(turn):
    while turn.text == "wait" and not Path("go").exists():
        time.sleep(0.05)
    return f"played {turn.text}"
"""
AGENT = """
[agents.one]
runner = "python"
python = "my_agents:play"
"""


@pytest.fixture(autouse=True)
def _code(tmp_path: Path) -> None:
    (tmp_path / "my_agents.py").write_text(CODE)


def test_flower_shows_how_much_waits(tmp_path: Path) -> None:
    config = HEAD.replace("enabled = false", "port = 0") + AGENT
    with place(tmp_path, config) as here:
        here.up()
        found = re.search(r"flower +(http://\S+)", here.said)
        assert found
        for text in ("wait", "next", "last"):
            here.send(text, "--to", "one")

        def shows() -> bool:
            try:
                page = httpx.get(f"{found[1]}/broker", timeout=10).text
            except httpx.TransportError:  # Flower starts when the fleet is up
                return False
            return bool(re.search(r">agent\.one</td>\s*<td[^>]*>[1-9]", page))

        wait_until(shows, 40)
        (tmp_path / "go").touch()
        assert here.stop() == 0


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Place]:
    """A plain Celery worker, started beside `fleet broker` and alive after that has ended."""
    # Longer than the fleet takes to start again on a busy machine: without its lease a worker ends.
    patient = HEAD.replace("[fleet]", "[fleet]\nlease_ttl_s = 60")
    with place(tmp_path, patient + AGENT) as here:
        with here.popen("broker") as broker:
            assert broker.stderr is not None
            broker.stderr.readline()
            argv = [sys.executable, "-m", "celery", "-A", "fleet", "worker"]
            argv += ["-Q", "agent.one", "-c", "1", "-n", "one@%h"]
            with (tmp_path / "worker.log").open("wb") as log:
                plain = subprocess.Popen(
                    argv, cwd=tmp_path, env=here.env, stdout=log, stderr=subprocess.STDOUT
                )
            assert here.outcome("first", "--to", "one")["answer"] == "played first"
            broker.terminate()
        try:
            yield here
        finally:
            plain.terminate()
            plain.wait(30)


def test_a_worker_of_another_shell_follows_the_fleet_over_its_restarts(worker: Place) -> None:
    with worker.popen("broker") as broker:
        assert broker.stderr is not None
        broker.stderr.readline()
        assert worker.outcome("second", "--to", "one")["answer"] == "played second"
        assert "Authentication" not in (worker.folder / "worker.log").read_text()
        broker.terminate()
