"""What stands between a configuration and its promises is found, with its remedy."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import keys
from fleet.cli import main
from fleet.doctor import examine
from fleet.errors import BrokerUnavailable
from fleet.settings import Settings, parse
from fleet.store import Store
from tests.fixtures.ledger import settings_for
from tests.fixtures.valkey import Valkey

PYTHON = {"runner": "python", "python": "a:b"}


def found(settings: Settings, store: Store) -> dict[str, str]:
    """Finding -> its level, or `loses data`."""
    return {
        finding.what: "loses data" if finding.loses_data else finding.level
        for finding in examine(settings, lambda: store)
        if finding.level != "info"
    }


def level(findings: dict[str, str], words: str) -> str | None:
    return next((level for what, level in findings.items() if words in what), None)


@pytest.fixture
def changed(store: Store) -> Iterator[Store]:
    """A store whose options a test may change."""
    names = ("appendonly", "maxmemory-policy", "maxmemory")
    before = {name: str(store.client.config_get(name)[name]) for name in names}
    yield store
    for name, value in before.items():
        store.client.config_set(name, value)


def test_a_server_without_aof_would_lose_events(changed: Store) -> None:
    changed.client.config_set("appendonly", "no")
    assert level(found(settings_for("a"), changed), "AOF is off") == "loses data"
    changed.client.config_set("appendonly", "yes")
    assert level(found(settings_for("a"), changed), "AOF is off") is None


def test_a_server_that_evicts_would_lose_events(changed: Store) -> None:
    changed.client.config_set("maxmemory", "100mb")
    changed.client.config_set("maxmemory-policy", "allkeys-lru")
    assert level(found(settings_for("a"), changed), "maxmemory-policy") == "loses data"


def test_who_does_not_work_is_named(store: Store, valkey: Valkey) -> None:
    settings = settings_for("a", "b", fleet={"broker_url": valkey.url})
    findings = found(settings, store)
    assert level(findings, "nobody works for a, b") == "warning"
    assert level(findings, "beat has never run") == "warning"
    seconds, _ = store.client.time()
    store.client.hset(keys.BEAT, "health", str(seconds))
    assert level(found(settings, store), "beat has never run") is None


def test_a_broker_that_is_away_is_an_error_without_its_password() -> None:
    def away() -> Store:
        raise BrokerUnavailable("no answer from redis://u:hush@db:6379/0")

    (first, *_) = examine(settings_for("a"), away)
    assert first.level == "error"
    assert "hush" not in first.what


def test_a_secret_that_everybody_can_read_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o001)
        if parent == Path("/tmp"):
            break
    file = folder / "fleet.toml"
    file.touch(mode=0o644)
    file.chmod(0o644)
    monkeypatch.setenv("FLEET_CONFIG", str(file))
    settings = parse({"agents": {"a": PYTHON}, "alerts": {"webhook": "https://x.example/s"}})
    assert level(found(settings, store), "holds a secret") == "warning"
    file.chmod(0o600)
    assert level(found(settings, store), "holds a secret") is None
    file.chmod(0o644)
    assert level(found(settings_for("a"), store), "holds a secret") is None


def agent(model: str, **params: Any) -> Settings:
    return parse({"agents": {"a": {"model": model, "params": params}}})


def test_a_model_that_could_not_be_called_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    assert level(found(agent("echo/brief"), store), "cannot call") is None
    keyless = found(agent("anthropic/claude-sonnet-4-5"), store)
    assert level(keyless, "ANTHROPIC_API_KEY is not in the environment") == "warning"
    assert level(found(agent("nosuch/model"), store), "no provider of that name") == "warning"
    with socket.create_server(("127.0.0.1", 0)) as server:
        base = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        there = agent("openai/m", api_base=base, api_key="k")
        assert level(found(there, store), "cannot call") is None
    assert level(found(there, store), "cannot be reached") == "warning"


def test_a_tool_that_is_not_installed_is_named(store: Store) -> None:
    settings = parse({"agents": {"a": PYTHON}, "tools": {"x": {"python": "no_such.mod:t"}}})
    assert level(found(settings, store), "no module 'no_such'") == "warning"


def test_the_command_exits_with_1_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--json"])
    assert end.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert "fleet up" in said["findings"][0]["what"]
