"""Decisions of `fleet up` before it starts anything, and the lines it shows."""

import socket
from pathlib import Path

import pytest

from fleet.cli.up import _next_command
from fleet.config.settings import parse
from fleet.errors import FleetError
from fleet.supervisor.processes import Addresses
from fleet.supervisor.run import _Echo

AGENTS = {"agents": {"archie": {"model": "echo/brief"}}}


def test_free_ports_are_chosen_before_anything_starts() -> None:
    settings = parse({**AGENTS, "api": {"port": 0}, "flower": {"port": 0}})
    chosen = Addresses.choose(settings)
    assert chosen.api == f"http://127.0.0.1:{chosen.api_port}"
    assert chosen.flower == f"http://127.0.0.1:{chosen.flower_port}"
    assert chosen.api_port != chosen.flower_port


def test_flower_can_be_switched_off() -> None:
    chosen = Addresses.choose(parse({**AGENTS, "api": {"port": 0}, "flower": {"enabled": False}}))
    assert (chosen.flower_port, chosen.flower) == (None, None)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("fleet.example", "http://fleet.example:80"),
    ],
)
def test_the_address_is_one_that_can_be_opened(host: str, url: str) -> None:
    assert Addresses(host, 80, None).api == url


def test_a_taken_port_is_named_with_its_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        tables = {"api": {"port": port}, "flower": {"port": 0}}
        with pytest.raises(FleetError, match=rf"^api\.port: cannot listen on 127.0.0.1:{port}"):
            Addresses.choose(parse({**AGENTS, **tables}))


def test_a_taken_port_of_a_viewer_refuses_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        tables = {"api": {"port": 0}, "flower": {"port": port}}
        assert Addresses.choose(parse({**AGENTS, **tables})).flower_port == port


def test_an_address_of_another_machine_is_named() -> None:
    settings = parse({**AGENTS, "api": {"host": "192.0.2.1", "port": 0}})
    with pytest.raises(FleetError, match=r"^api\.port: cannot listen on 192\.0\.2\.1"):
        Addresses.choose(settings)


def test_only_warnings_are_shown_and_each_as_one_line() -> None:
    shown: list[str] = []
    echo = _Echo(shown.append)
    for name, line in [
        ("a", "[2026-11-21 10:00:00,123: INFO/MainProcess] all is well"),
        ("a", "[2026-11-21 10:00:00,123: ERROR/MainProcess] it broke"),
        ("a", "Traceback (most recent call last):"),
        ("a", "ValueError: x"),
        ("a", ""),
        ("f", "[I 261121 10:00:00 command:1] Visit me"),
        ("f", "[W 261121 10:00:00 inspector:1] nobody answers"),
        ("w", "INFO:     Started server process [1]"),
        ("w", "WARNING:  Invalid HTTP request received."),
        ("c", "started, pid 7"),
        ("c", "ended with SIGKILL, starts again in 0.1 s"),
        ("c", "fleet: agents.x: there is no such agent."),
        ("c", "ended with exit code 0"),
        ("h", "the worker of a ended with SIGKILL after 14.7 s; the next starts in 0 s"),
    ]:
        echo(name, line)
    assert shown == [
        "a: [2026-11-21 10:00:00,123: ERROR/MainProcess] it broke",
        "f: [W 261121 10:00:00 inspector:1] nobody answers",
        "w: WARNING:  Invalid HTTP request received.",
        "c: ended with SIGKILL, starts again in 0.1 s",
        "c: fleet: agents.x: there is no such agent.",
        "h: the worker of a ended with SIGKILL after 14.7 s; the next starts in 0 s",
    ]


def test_the_command_to_try_next_works_with_this_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEET_CONFIG", raising=False)
    assert _next_command(parse(AGENTS)) == "fleet send Hello --wait --to archie"
    routed = parse({**AGENTS, "routes": {"default": ["archie"]}})
    assert _next_command(routed) == "fleet send Hello --wait"
    (tmp_path / "my fleet.toml").write_text("")
    monkeypatch.setenv("FLEET_CONFIG", "my fleet.toml")
    assert _next_command(routed) == "fleet send Hello --wait --config 'my fleet.toml'"
