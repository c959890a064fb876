"""A model calls the tools of a Model Context Protocol server, in a real worker."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.ledger import views
from tests.fakes import tool_server
from tests.fakes.provider import Provider
from tests.fixtures.fleet import Fleet, Tables, fleet_of
from tests.fixtures.processes import gone, wait_until

SERVER = [sys.executable, "-S", str(Path(tool_server.__file__))]

#: One call hangs for so long; the others must be done by then, 50 MB among them.
TOOL_S = 8

#: Rounds of calls, each of a tool and the text it is given.
Script = list[list[list[str]]]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Fleet]:
    llm: dict[str, Any] = {
        "runner": "llm",
        "model": "openai/script",
        "params": {"api_base": provider.url, "api_key": "k"},
        "retry": {"attempts": 2, "backoff_s": 0, "min_age_s": 0},
    }
    agents = {
        "archie": {**llm, "tools": ["kit", "notes"], "max_tool_rounds": 5},
        "gem": {**llm, "tools": ["silent"], "timeout_s": 2},
    }
    sections: Tables = {
        "tools.kit": {
            "command": [*SERVER, "stubborn"],
            "timeout_s": TOOL_S,
            "max_result_bytes": 1000,
            "env": {"GIVEN": "a gift"},
            "classes": {'"odd.name of a tool"': "read"},
        },
        "tools.notes": {"python": "tests.fixtures.tools:painted"},
        "tools.silent": {"command": [*SERVER, "never", "stubborn"]},
    }
    folder = tmp_path_factory.mktemp("fleet")
    with fleet_of(folder, agents, sections=sections) as fleet:
        yield fleet


def send(fleet: Fleet, script: Script) -> str:
    calls = [[[name, {"text": text}] for name, text in one] for one in script]
    return fleet.send("archie", json.dumps(calls))


def told(provider: Provider) -> list[str]:
    """Answers of the last turn's tools to the model."""
    return [
        one["content"] for one in provider.requests[-1].body["messages"] if one["role"] == "tool"
    ]


def served(fleet: Fleet, what: str = "") -> list[dict[str, Any]]:
    """The notes of the servers."""
    path = fleet.folder / tool_server.SERVED
    lines = path.read_text().splitlines() if path.exists() else []
    return [entry for entry in map(json.loads, lines) if what in ("", entry["what"])]


def servers(fleet: Fleet) -> list[int]:
    """Those that live."""
    return [entry["pid"] for entry in served(fleet, "start") if not gone(entry["pid"])]


def test_a_server_serves_turn_after_turn(fleet: Fleet, provider: Provider) -> None:
    (worker,) = fleet.ready("archie")
    fleet.wait_state(send(fleet, [[["read_echo", "first"]]]), "completed")
    assert told(provider) == ["read_echo: first"]
    offered = {one["function"]["name"] for one in provider.requests[-1].body["tools"]}
    assert {"read_echo", "write_note", "odd_name_of_a_tool", "paint"} <= offered
    script: Script = [
        [
            *(["read_env", "GIVEN"], ["read_env", "FLEET_BROKER_URL"], ["odd_name_of_a_tool", "x"]),
            *(["read_big", "50"], ["read_kinds", ""], ["read_colours", "red"], ["paint", "blue"]),
            *(["read_wrong", ""], ["read_refused", ""], ["read_nonsense", ""], ["read_noise", ""]),
        ],
        [["write_more", ""]],
        [["write_die", ""]],
        [["read_stuck", "sk-canary-4711"]],
        [["read_echo", "alive"]],
    ]
    dispatch_id = send(fleet, script)
    fleet.wait_state(dispatch_id, "completed")
    found = told(provider)
    assert found[:3] == ["a gift", "not there", "odd.name of a tool: x"]
    assert "52428800 characters, 1000 bytes are allowed" in found[3]
    assert len(found[3]) <= 1000
    assert found[4].splitlines() == [
        "first",
        "[image, image/png, 5 bytes: not shown]",
        "[audio, audio/wav, 5 bytes: not shown]",
        "[resource file:///a.txt: a]",
        *("[resource file:///a.txt]", "inside"),
        "[resource file:///a.txt, text/plain, 5 bytes: not shown]",
    ]
    assert found[5:8] == ["red", '{"colour": "blue"}', '{"error": "the disk is full"}']
    assert "the server answered: no such thing (-32042)" in found[8]
    assert json.loads(found[8])["error"].endswith('{"known": ["this", "that"]}')
    assert found[9] == "no list"
    assert found[10:12] == ["read_noise: ", "write_more: "]
    assert "ended with exit code 3 in the middle of it" in found[12]
    assert f"longer than {TOOL_S} s for read_stuck; the server hangs and is ended" in found[13]
    assert found[14] == "read_echo: alive"
    # One for all turns, until it was killed: once by itself, once because it hung.
    assert len(served(fleet, "start")) == 3
    assert len(servers(fleet)) == 1
    record = views.get(fleet.books.store, dispatch_id)
    assert record is not None
    assert [step["name"] for step in record["steps"]][:3] == ["llm", *["tool read_env"] * 2]
    assert "sk-canary" not in worker.said()
    assert "Traceback" not in worker.said()


def test_a_killed_turn_calls_nothing_twice_and_leaves_no_server(
    fleet: Fleet, provider: Provider
) -> None:
    (worker,) = fleet.processes
    script: Script = [
        [["read_echo", "k1"], ["write_note", "k2"], ["write_fork", "k3"]],
        [["write_gate", "k4"]],
    ]
    before, asked = len(served(fleet)), len(provider.requests)
    dispatch_id = send(fleet, script)
    wait_until(lambda: any(one.get("text") == "k4" for one in served(fleet)))
    forked = [int(pid) for pid in told(provider)[-1].split()]
    (child,) = worker.children()
    assert len(forked) == 3
    left = [*servers(fleet), *forked]
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: all(map(gone, left)))
    fleet.open_gate("k4")
    record = fleet.wait_state(dispatch_id, "completed")
    assert record["attempt"] == "2"
    assert len(provider.requests) - asked == 3
    called = [one["text"] for one in served(fleet)[before:] if "text" in one]
    assert called == ["k1", "k2", "k3", "k4", "k4"]


def test_a_plain_worker_that_is_killed_leaves_no_server(fleet: Fleet) -> None:
    (worker,) = fleet.processes
    left = servers(fleet)
    assert left
    worker.kill()
    wait_until(lambda: all(map(gone, left)))


def test_a_silent_server_does_not_outlast_the_time_limit(fleet: Fleet, provider: Provider) -> None:
    (worker,) = fleet.ready("gem")
    asked = len(provider.requests)
    record = fleet.wait_state(fleet.send("gem", "[]"), "retrying")
    assert record["stage"] == "timeout"
    assert len(provider.requests) == asked
    left = servers(fleet)
    assert left
    worker.signal(signal.SIGTERM)
    worker.wait()
    wait_until(lambda: all(map(gone, left)))
