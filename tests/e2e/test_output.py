"""Nobody reads what the fleet prints: it works on, and stops in order."""

import os
import pty
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from fleet.system.api_address import read_address
from tests.e2e.running import COMMAND_S, ECHO, HEAD, UP_S, Place, place
from tests.fixtures.processes import wait_until

pytestmark = pytest.mark.timeout(240)

CONFIG = HEAD + ECHO
CODE = """
import os, sys

def echo(turn):
    if turn.text == "die":
        os.kill(os.getppid(), 9)
    print("a line of its own", file=sys.stderr, flush=True)
    return f"You said: {turn.text}"
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "my_agents.py").write_text(CODE)
    with place(tmp_path, CONFIG) as found:
        yield found


@contextmanager
def gone() -> Iterator[int]:
    """A pipe whose reader has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def stuck() -> Iterator[int]:
    """A full pipe that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for size in (4096, 1):
        try:
            while True:
                os.write(writer, b"x" * size)
        except BlockingIOError:
            continue
    os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


@contextmanager
def full() -> Iterator[int]:
    """A file on a full disk."""
    writer = os.open("/dev/full", os.O_WRONLY)
    yield writer
    os.close(writer)


@contextmanager
def hung_up() -> Iterator[int]:
    """A terminal whose other side is closed."""
    ours, theirs = pty.openpty()
    os.close(ours)
    yield theirs
    os.close(theirs)


Sink = Callable[[], AbstractContextManager[int]]
SINKS = pytest.mark.parametrize("sink", [gone, stuck, full, hung_up])


def answers(here: Place) -> bool:
    url = read_address(here.folder / ".fleet")
    try:
        return url is not None and httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def works(here: Place) -> None:
    """The API answers and events complete, also after a worker has died, which is told."""
    wait_until(lambda: answers(here), UP_S)
    assert here.outcome("hello")["answer"] == "You said: hello"
    here.send("die")
    assert here.outcome("still there")["answer"] == "You said: still there"
    assert answers(here)


@SINKS
def test_a_fleet_whose_output_goes_nowhere(here: Place, sink: Sink) -> None:
    with sink() as writer:
        process = here.popen("up", stdout=writer, stderr=writer)
        works(here)
        process.send_signal(signal.SIGTERM)
        assert process.wait(COMMAND_S) == 0
    assert not here.living()


def test_a_fleet_of_which_one_line_is_read(here: Place) -> None:
    """As `fleet up 2>&1 | head -1` does."""
    process = here.popen("up", stderr=subprocess.STDOUT)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("fleet: starting")
    process.stdout.close()
    works(here)
    process.send_signal(signal.SIGINT)
    assert process.wait(COMMAND_S) == 0


@pytest.mark.parametrize("full", ["a disk", "a file in the folder's place"])
def test_a_fleet_whose_logs_cannot_be_written(here: Place, full: str) -> None:
    folder = here.folder / ".fleet/log"
    if full == "a disk":
        folder.mkdir(parents=True)
        try:
            for name in ("agents", "shared", "beat", "api"):
                os.mknod(folder / f"{name}.log", stat.S_IFCHR | 0o600, os.stat("/dev/full").st_rdev)
        except PermissionError:
            pytest.skip("only the superuser makes a device")
    else:
        folder.parent.mkdir()
        folder.write_text("")
    here.up()
    works(here)
    assert here.said.count("api: its log cannot be written") == 1
    assert here.stop() == 0


@SINKS
def test_its_parts_one_by_one(here: Place, sink: Sink) -> None:
    """As under a Procfile or an init system; the worker is Celery's own."""
    worker = ("worker", "-Q", "agent.echo", "-c", "1", "-l", "DEBUG", "-n", "echo@%h")
    celery = [sys.executable, "-m", "celery", "-A", "fleet"]
    shared = ("worker", "-Q", "intake,maintenance,delivery", "-c", "1", "-n", "shared@%h")
    with sink() as writer:
        here.env["FLEET_API__PORT"] = "0"

        def start(argv: list[str]) -> "subprocess.Popen[bytes]":
            return subprocess.Popen(
                argv, cwd=here.folder, env=here.env, stdout=writer, stderr=writer
            )

        broker = start(here.argv("broker"))
        assert here.fleet("broker", "--wait", "30").code == 0
        parts = [start(here.argv("api")), *(start([*celery, *one]) for one in (worker, shared))]
        parts.append(start([*celery, "beat", "--pidfile="]))
        wait_until(lambda: answers(here), UP_S)
        assert here.outcome("hello")["answer"] == "You said: hello"
        assert [part.poll() for part in (broker, *parts)] == [None] * 5
        for part in (*parts, broker):
            part.send_signal(signal.SIGTERM)
        assert [part.wait(COMMAND_S) for part in (broker, *parts)] == [0] * 5


def test_a_quiet_fleet_says_only_what_goes_wrong(here: Place) -> None:
    quiet = here.output.open("w")
    with quiet, here.popen("up", "--quiet", stdout=quiet, stderr=subprocess.STDOUT) as up:
        wait_until(lambda: here.fleet("health").code == 0, UP_S)
        assert here.fleet("send", "hello", "--wait").out == "You said: hello\n"
        assert here.said == ""
        here.send("die")
        wait_until(lambda: "agents: the worker of echo ended with SIGKILL after" in here.said)
        up.send_signal(signal.SIGINT)
        assert up.wait(COMMAND_S) == 0
    assert all("ended with SIGKILL after" in line for line in here.said.splitlines())
