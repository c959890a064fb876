"""Flower beside a fleet: what it shows and keeps, whom it answers, and how it may fail."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from fleet.system.api_address import read_address
from tests.e2e.running import ECHO, ECHO_CODE, HEAD, UP_S, Place, place
from tests.fixtures.containers import free_port
from tests.fixtures.processes import wait_until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def here(tmp_path: Path, port: int) -> Iterator[Place]:
    (tmp_path / "my_agents.py").write_text(ECHO_CODE)
    config = HEAD.replace("enabled = false", f"port = {port}") + ECHO
    with place(tmp_path, config) as found:
        yield found


def get(port: int, path: str, **headers: str) -> httpx.Response | None:
    url = f"http://127.0.0.1:{port}/{path}"
    with suppress(httpx.TransportError):
        return httpx.get(url, headers=headers, timeout=10, trust_env=False)
    return None


def shows(port: int, path: str, text: str) -> bool:
    page = get(port, path)
    return page is not None and text in page.text


def health(here: Place) -> dict[str, Any]:
    url = read_address(here.folder / ".fleet")
    found: dict[str, Any] = httpx.get(f"{url}/health", timeout=10).json()
    return found


def flower(here: Place) -> psutil.Process | None:
    for process in here.living():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if process.cmdline()[-1] == "flower":
                return process
    return None


def test_what_flower_knows_survives_its_death(here: Place, port: int) -> None:
    here.up()
    wait_until(lambda: shows(port, "workers", "echo@"), UP_S)
    one = here.outcome("hello", "--session", "s-7")["dispatch_id"]
    wait_until(lambda: shows(port, f"task/{one}", "SUCCESS"), 30)
    for shown in ("echo", "s-7", "completed"):
        assert shows(port, f"task/{one}", shown)
    assert "You said" not in here.folder.joinpath(".fleet/log/flower.log").read_text()
    assert here.stop() == 0

    here.up()
    wait_until(lambda: shows(port, f"task/{one}", "SUCCESS"), UP_S)
    before = flower(here)
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    before.wait(10)
    wait_until(lambda: shows(port, f"task/{one}", "SUCCESS"), UP_S)
    assert here.stop() == 0

    kept = [path for path in (here.folder / ".fleet/flower").iterdir() if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(b"not what was written")
    here.up()
    wait_until(lambda: shows(port, "workers", "echo@"), UP_S)
    assert here.outcome("hello")["state"] == "completed"
    assert here.stop() == 0


def test_flower_answers_no_foreign_page(here: Place, port: int) -> None:
    here.env["FLEET_API__ALLOWED_HOSTS"] = '["host.docker.internal"]'
    here.up()
    wait_until(lambda: shows(port, "workers", "echo@"), UP_S)
    own = f"127.0.0.1:{port}"

    def code(path: str, **headers: str) -> int:
        answer = get(port, path, **headers)
        assert answer is not None
        return answer.status_code

    assert code("api/workers") == 401, "Flower's own check, behind ours"
    assert code("workers", Host=f"localhost:{port}") == 200
    assert code("workers", Host=f"host.docker.internal:{port}") == 200
    for host in ("rebound.example", f"rebound.example:{port}", "fleet", "", "127.0.0.1.example"):
        assert code("workers", Host=host) == 403, host
        assert code("api/workers", Host=host) == 403, host
        assert code("static/css/flower.css", Host=host) == 403, host
    for headers in ({"Host": "rebound.example"}, {"Origin": "http://rebound.example"}):
        for path in ("api/worker/shutdown/echo", "api/task/send-task/fleet.dispatch"):
            url = f"http://{own}/{path}"
            assert httpx.post(url, headers=headers, trust_env=False).status_code == 403
    assert here.outcome("hello")["state"] == "completed"
    assert here.stop() == 0


def test_a_flower_that_fails_is_told_and_ends_nothing(here: Place, port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        here.up()
        assert here.outcome("hello")["state"] == "completed"
        wait_until(lambda: bool(health(here)["failing"]), UP_S)
        (row,) = health(here)["failing"]
        assert row["process"] == "flower"
        assert "Address already in use" in row["reason"]
        found = here.fleet("doctor", "--json").json["findings"]
        assert any("flower of" in finding["what"] for finding in found)
        assert "Address already in use" in here.fleet("health").out
        assert "Address already in use" in here.said
    wait_until(lambda: shows(port, "workers", "echo@"), UP_S)
    assert here.outcome("hello")["state"] == "completed"
    assert here.stop() == 0
