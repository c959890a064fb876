"""The copy of the configuration that a running fleet's processes read, and its changes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.config.settings import load
from fleet.errors import ConfigError
from fleet.supervisor.running_config import NAME, RunningConfig

ONE = """
[fleet]
data_dir = "here"
[agents.a]
model = "echo/brief"
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the file that a fleet runs with."""
    for name in [name for name in os.environ if name.startswith("FLEET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FLEET_CONFIG", "fleet.toml")  # so that it is put back
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()

    def written(text: str) -> None:
        (tmp_path / "fleet.toml").write_text(text)

    return written


def test_processes_read_a_copy_until_a_change_is_taken(write: Callable[[str], None]) -> None:
    write(ONE)
    running = RunningConfig()
    running.publish()
    assert os.environ["FLEET_CONFIG"] == str(Path("here", NAME).absolute())
    assert Path("here", NAME).stat().st_mode & 0o777 == 0o600
    write("[broken")
    load.cache_clear()
    assert load() == running.settings
    with pytest.raises(ConfigError, match=r"fleet\.toml: is not valid TOML"):
        running.read()
    write(f'{ONE}instructions = "Be brief."\n')
    change = running.read()
    assert change.keys == ("agents.a.instructions",)
    running.take(change)
    load.cache_clear()
    assert load().agents["a"].instructions == "Be brief."
    assert running.read().keys == ()
    load.cache_clear()


def test_each_difference_is_named_and_a_whole_table_once(write: Callable[[str], None]) -> None:
    write(f"{ONE}[agents.b]\nmodel = 'echo/brief'\n[agents.b.retry]\nattempts = 2\n")
    running = RunningConfig()
    write(f"{ONE}[agents.c]\nmodel = 'echo/brief'\n[routes]\ndefault = ['a']\n[lanes]\nslow = 1\n")
    assert set(running.read().keys) == {"agents.b", "agents.c", "routes.default", "lanes.slow"}


def test_what_a_running_fleet_keeps_is_named_and_kept(write: Callable[[str], None]) -> None:
    write(f"{ONE}[api]\nport = 8701\n")
    running = RunningConfig()
    write(
        ONE.replace('"here"', '"there"\nbroker_url = "redis://h/0"\ndrain_s = 3')
        + "[api]\nport = 1\ntoken_rate_per_s = 7\n[flower]\nport = 2\n"
    )
    change = running.read()
    assert set(change.keys) == {"fleet.drain_s", "api.token_rate_per_s"}
    assert set(change.fixed) == {"fleet.data_dir", "fleet.broker_url", "api.port", "flower.port"}
    assert change.settings.broker_url is None
    assert change.settings.api.port == 8701


def test_a_variable_wins_over_the_changed_file(
    write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_AGENTS__A__MODEL", "echo/slow-1")
    write(ONE)
    running = RunningConfig()
    write(ONE.replace("echo/brief", "echo/hang"))
    assert running.read().keys == ()


def test_the_demo_fleet_takes_a_file_that_was_written_since(
    write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLEET_CONFIG")
    monkeypatch.setenv("FLEET_DATA_DIR", "here")
    running = RunningConfig()
    running.publish()
    assert json.loads(Path("here", NAME).read_text())["routes"]["default"] == ["archie"]
    write(ONE)
    assert {"agents.a", "agents.archie"} <= set(running.read().keys)
