"""The name that was meant, wherever one is mistyped: keys, agents, targets, commands, models."""

from pathlib import Path

import pytest

from fleet.cli import main
from fleet.config.settings import load, parse
from fleet.errors import ConfigError
from tasks.model.echo import fault_of

CONFIG = """
[agents.archie]
model = "echo/brief"
[agents.gem]
model = "echo/brief"
[routes]
groups = { reviewers = ["gem"] }
[chains.release]
stages = ["archie"]
"""


@pytest.fixture(autouse=True)
def _config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fleet.toml").write_text(CONFIG)
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    load.cache_clear()


@pytest.mark.parametrize(
    ("command", "question"),
    [
        (["snd", "x"], "No such command 'snd'; did you mean send? See `fleet --help`."),
        (["queue", "lst"], "No such command 'lst'; did you mean list? See `fleet queue --help`."),
        (["zzzzz"], "No such command 'zzzzz'. See `fleet --help`."),
        (
            ["resend", "x"],
            "No such command 'resend'; did you mean `fleet queue resend`? See `fleet --help`.",
        ),
        (
            ["drain"],
            "No such command 'drain'; did you mean `fleet agents drain` or `fleet queue drain`?",
        ),
        (["send", "x", "--wiat"], "'--wait'?)"),
        (["route", "x", "--to", "archi"], "chain 'archi' in this fleet; did you mean archie?"),
        (["route", "x", "--to", "@reviewer"], "did you mean @reviewers?"),
        (["route", "x", "--to", "chain:relase"], "did you mean chain:release?"),
        (["route", "x", "--to", "zzzzz"], "chain 'zzzzz' in this fleet."),
        (["agents", "pause", "gme"], "no agent 'gme' in this fleet; did you mean gem?"),
    ],
)
def test_a_mistyped_word_of_a_command_is_guessed(
    command: list[str], question: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code in (1, 2)
    assert question in capsys.readouterr().err


ONE = {"agents": {"archie": {"model": "echo/brief"}}}
RECEIVER = {"deliveries": {"crm": {"webhook": "https://x.example/", "secret": "0123456789abcdef"}}}


@pytest.mark.parametrize(
    ("tables", "question"),
    [
        ({"routes": {"default": ["archi"]}}, "or chain:NAME; did you mean archie?"),
        ({"routes": {"groups": {"g": ["archi"]}}}, "not an agent; did you mean archie?"),
        ({"chains": {"c": {"stages": ["archi"]}}}, "did you mean archie?"),
        ({"deliveries": {"d": {"agent": "archi"}}}, "did you mean archie?"),
        (
            {"agents": {"a": {"model": "echo/brief", "tools": ["queu"]}}},
            "there is no [tools.queu]; did you mean queue?",
        ),
        (
            {**RECEIVER, "agents": {"a": {"model": "echo/brief", "deliver": ["crn"]}}},
            "there is no [deliveries.crn]; did you mean crm?",
        ),
    ],
)
def test_a_mistyped_name_in_the_file_is_guessed(tables: dict[str, object], question: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse({**ONE, **tables})
    assert question in str(refusal.value)


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        (
            {"agents": {"a": {"runner": "command", "command": "wc -w"}}},
            'agents.a.command: must be a list, written command = ["program", "argument"].',
        ),
        (
            {**ONE, "routes": {"default": "archie"}},
            'routes.default: must be a list, written default = ["...", "..."].',
        ),
        ({"agents": {"a": "echo"}}, "agents.a: must be a table, written [agents.a]."),
        (
            {"agents": {"a": {"model": "m/m", "retry": 3}}},
            "agents.a.retry: must be a table, written [agents.a.retry].",
        ),
    ],
)
def test_a_value_of_another_kind_says_how_it_is_written(
    tables: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(tables)
    assert str(refusal.value) == sentence


def test_a_folder_in_place_of_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["agents", "--config", str(tmp_path)], ["send", "--event", str(tmp_path)]):
        load.cache_clear()
        with pytest.raises(SystemExit):
            main(command)
        assert "is a folder; name " in capsys.readouterr().err
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))


def test_an_echo_that_does_not_exist_is_guessed() -> None:
    assert fault_of("echo/brif") == "there is no such echo; did you mean echo/brief?"
    assert fault_of("echo/brief") is fault_of("echo/slow-2.5") is fault_of("echo/hang") is None


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"command": ["wc"]}, 'has no model, but `command`: set `runner = "command"`'),
        ({"python": "a:b"}, 'has no model, but `python`: set `runner = "python"`'),
        ({"url": "https://a.example"}, 'has no model, but `url`: set `runner = "http"`'),
        (
            {"runner": "python", "python": "a"},
            'names no callable: set `python = "package.module:callable"`',
        ),
    ],
)
def test_the_runner_that_was_meant_is_named(keys: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse({"agents": {"a": keys}})
    assert str(refusal.value) == f"agents.a: {fault}."
