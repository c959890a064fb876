"""`fleet up`: what it refuses, how it stops, and what survives when it is killed."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from fleet.broker.binary import find_server
from tests.e2e.running import HEAD, UP_S, Place, place
from tests.fixtures.containers import free_port
from tests.fixtures.processes import wait_until

pytestmark = pytest.mark.timeout(180)

#: No model: each start would import LiteLLM for seconds, and other files have agents with one.
AGENTS = """
[agents.echo]
runner = "python"
python = "my_agents:echo"
[agents.slow]
runner = "python"
python = "my_agents:slow"
[routes]
default = ["echo"]
"""

CODE = """
import os, time

def echo(turn):
    return f"You said: {turn.text}"

def slow(turn):
    while not os.path.exists(turn.text):
        time.sleep(0.01)
    return f"{turn.text} is there"
"""

KINDS = re.compile(r"valkey-server|fleet host|fleet api|fleet worker|fleet beat|fleet flower")

LISTEN = socket.AF_INET, socket.SOCK_STREAM


@pytest.fixture(autouse=True)
def _code(tmp_path: Path) -> None:
    (tmp_path / "my_agents.py").write_text(CODE)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path, HEAD + AGENTS) as found:
        yield found


def _is_ok(url: str) -> bool:
    """True when a GET is answered with 200."""
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def names(here: Place) -> set[str]:
    """The kinds of processes that run."""
    found = set()
    for process in here.living():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found.update(KINDS.findall(" ".join(process.cmdline())))
    return found


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket(*LISTEN) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = f"{AGENTS}[api]\nport = {taken.getsockname()[1]}\n[flower]\nport = 0\n"
        with place(tmp_path, config) as here:
            answer = here.fleet("up")
    assert answer.code == 1
    assert "api.port" in answer.one_sentence()
    assert not (tmp_path / ".fleet/broker").exists()


@pytest.mark.parametrize("folder", ["a-file", "a-file/below"])
def test_an_unusable_data_folder_is_one_sentence(tmp_path: Path, folder: str) -> None:
    (tmp_path / "a-file").write_text("")
    config = HEAD.replace("[fleet]", f"[fleet]\ndata_dir = '{folder}'") + AGENTS
    with place(tmp_path, config) as here:
        answer = here.fleet("up")
    assert answer.code == 1
    assert "fleet.data_dir" in answer.one_sentence()


def test_a_broker_that_refuses_connections_is_one_sentence(tmp_path: Path) -> None:
    url = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    with place(tmp_path, HEAD + AGENTS, {"FLEET_BROKER_URL": url}) as here:
        for command in (["up"], ["send", "x"], ["queue", "stats"]):
            answer = here.fleet(*command)
            assert answer.code == 1
            assert answer.err.splitlines()[-1].startswith("fleet: The broker does not answer")
            assert "hunter2" not in answer.err


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Somebody's own Valkey, which keeps nothing and wants a password; its port."""
    port = free_port()
    argv = [str(find_server().path), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(
        [*argv, "--requirepass", "secret"],
        cwd=tmp_path_factory.mktemp("server"),
        stdout=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: _listens(port))
        yield port
        process.kill()


def _listens(port: int) -> bool:
    with socket.socket(*LISTEN) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_configured_broker_is_judged_and_used_as_it_is(tmp_path: Path, server: int) -> None:
    with place(tmp_path, HEAD + AGENTS) as here:
        here.env["FLEET_BROKER_URL"] = f"valkey://127.0.0.1:{server}/0"
        assert "password" in here.fleet("up").err
        here.env["FLEET_BROKER_URL"] = f"valkey://:secret@127.0.0.1:{server}/0"
        here.up()
        assert "AOF is off" in here.said
        assert ":secret@" not in here.said
        assert here.fleet("send", "hello", "--wait").out == "You said: hello\n"
        assert here.stop() == 0
        assert not (tmp_path / ".fleet/broker").exists()
    assert _listens(server), "it is not ours to stop"


def test_it_says_where_everything_answers_and_is_the_only_one(tmp_path: Path) -> None:
    config = AGENTS + "[api]\nport = 0\n[flower]\nport = 0\n"
    with place(tmp_path, config) as here:
        here.up()
        first = re.search(r"fleet is up: console and API at (\S+) ", here.said)
        flower = re.search(r"\n  flower  (\S+) \(starting\)\n", here.said)
        assert first
        assert flower
        broker = f"redis+socket://***@{here.folder}/.fleet/broker/server.sock?virtual_host=0"
        assert f"\n  broker  {broker}\n" in here.said
        assert _is_ok(f"{first[1]}/readyz")
        wait_until(lambda: _is_ok(f"{flower[1]}/healthcheck"), UP_S)
        assert names(here) >= {"fleet worker", "fleet beat", "fleet flower", "fleet api"}
        second = here.fleet("up")
        assert second.code == 1
        assert "already running" in second.one_sentence()
        assert here.fleet("send", "still there", "--wait").out == "You said: still there\n"
        assert here.stop(signal.SIGTERM) == 0


def test_ctrl_c_lets_the_running_turn_end(here: Place) -> None:
    here.up()
    dispatch_id = here.send("go", "--to", "slow")
    wait_until(lambda: here.state(dispatch_id) == "active")
    here.signal(signal.SIGINT)
    # Everything that serves nobody's turn ends first.
    wait_until(lambda: "fleet beat" not in names(here))
    (here.folder / "go").touch()
    assert here.wait() == 0
    assert not here.living()
    with here.popen("broker") as broker:
        assert broker.stderr is not None
        broker.stderr.readline()
        record = here.fleet("queue", "inspect", dispatch_id, "--json").json
        assert (record["state"], record["attempt"]) == ("completed", 1)
        broker.terminate()


def test_after_the_death_of_everything_what_was_accepted_completes(here: Place) -> None:
    here.up()
    sent = [here.send("go", "--to", "slow") for _ in range(2)]
    wait_until(lambda: here.state(sent[0]) == "active")
    here.kill_everything()
    (here.folder / "go").touch()
    here.up()
    wait_until(lambda: all(here.state(one) == "completed" for one in sent), 40)
    assert here.stop() == 0


def test_when_it_is_killed_its_processes_end_and_the_broker_is_adopted(here: Place) -> None:
    here.up()
    running, waiting = (here.send("go", "--to", "slow") for _ in range(2))
    wait_until(lambda: here.state(running) == "active")
    broker = json.loads((here.folder / ".fleet/broker/endpoint.json").read_text())["pid"]
    here.stop(signal.SIGKILL)
    wait_until(lambda: names(here) == {"valkey-server"}, 30)
    os.kill(broker, 0)
    assert here.state(waiting) == "queued"
    (here.folder / "go").touch()
    here.up()
    assert f"still running since the last time, pid {broker}" in here.said
    for dispatch_id in (running, waiting):
        wait_until(lambda: here.state(dispatch_id) == "completed")  # noqa: B023 - called here
    assert here.stop() == 0


def test_the_broker_alone_serves_until_it_is_told_to_end(here: Place) -> None:
    with here.popen("broker") as broker:
        assert broker.stderr is not None
        assert "the broker is redis+socket://***@/" in broker.stderr.readline()
        assert here.fleet("send", "for later", "--json").code == 0
        assert "already running" in here.fleet("up").one_sentence()
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(20) == 0
    assert not here.living()


def test_with_a_broker_url_there_is_no_broker_to_run(here: Place) -> None:
    here.env["FLEET_BROKER_URL"] = "redis://:secret@127.0.0.1:1/0"
    with here.popen("broker") as broker:
        assert broker.stderr is not None
        assert "nothing to run here" in broker.stderr.readline()
        broker.send_signal(signal.SIGINT)
        assert broker.wait(20) == 0


def test_a_renamed_agent_leaves_no_work_behind(here: Place) -> None:
    """Work of the old name is told at the start, and goes on under the new one."""
    here.up()
    assert here.fleet("agents", "pause", "slow").code == 0
    waiting = here.send("here", "--to", "slow")
    assert here.stop() == 0
    (here.folder / "fleet.toml").write_text(HEAD + AGENTS.replace("agents.slow", "agents.new"))
    (here.folder / "here").touch()
    here.up()
    assert "slow is not in the configuration any more and still has work: 1 queued" in here.said
    listed = here.fleet("queue", "list", "--agent", "slow", "--json").json["dispatches"]
    assert [row["dispatch_id"] for row in listed] == [waiting]
    assert "fleet queue move slow NEW" in here.fleet("doctor").out.replace("\n", " ")
    assert here.fleet("queue", "move", "slow", "new", "--json").json["moved"] == 1
    wait_until(lambda: here.state(waiting) == "completed")
    assert here.fleet("health", "--json").json["g2"]["removed"] == {}
    assert here.stop() == 0
