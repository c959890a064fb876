"""Contexts, and the choice of the fleet that a command works on."""

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import pytest

from fleet.cli import cli
from fleet.cli.destination import NEITHER, REMOTE
from tests.fixtures.commands import Commands
from tests.fixtures.valkey import free_port

TOKEN = "fleet_0123456789ab_the-secret-of-a-token"

#: Commands of the machine that the fleet runs on.
HERE = {
    *(
        "up",
        "demo",
        "doctor",
        "recover",
        "host",
        "api",
        "flower",
        "upstream",
        "broker",
        "bench",
        "logs",
        "reload",
    ),
}


@pytest.fixture
def commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Commands:
    for name in [name for name in os.environ if name.startswith("FLEET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FLEET_CONFIG", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fleet.client.connection.RETRY_S", 0.0)
    return Commands(monkeypatch, capsys)


@pytest.fixture
def nobody() -> str:
    """A URL at which nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


def file_of(folder: Path) -> Path:
    return folder / "config/fleet/contexts.json"


def paths(group: click.Group = cli, before: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from paths(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_each_command_says_whether_it_works_elsewhere() -> None:
    groups = {"agents", "alerts"}  # also commands of their own
    assert {*paths(), *groups} == REMOTE | NEITHER | HERE


def test_contexts_are_added_used_listed_and_removed(commands: Commands, nobody: str) -> None:
    said = commands.run("context", "add", "prod", "--url", f"{nobody}/", "--token", TOKEN)
    assert (said.code, said.out.split(",")[0]) == (0, f"prod: {nobody}")
    assert commands.run("context", "use", "prod").code == 0
    (row,) = json.loads(commands.run("context", "list", "--json").out)
    assert row == {"name": "prod", "url": nobody, "token": "file", "current": True}
    assert "prod" in commands.run("context", "list").out
    assert nobody in commands.refused("queue", "list")[1]
    assert commands.run("context", "remove", "prod").code == 0
    assert commands.run("context", "list", "--json").out == "[]\n"


def test_a_token_is_in_a_file_for_its_user_alone_and_never_printed(
    commands: Commands, tmp_path: Path
) -> None:
    commands.env.setenv("FLEET_TOKEN", TOKEN)
    said = [commands.run("context", "add", "prod", "--url", "https://fleet.example")]
    said += [commands.run("context", "list"), commands.run("context", "list", "--json")]
    said += [commands.run("context", "use", "prod", "--json")]
    assert all(one.code == 0 and TOKEN not in one.out + one.err for one in said)
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o600
    assert json.loads(file_of(tmp_path).read_text())["contexts"]["prod"]["token"] == TOKEN


def test_a_token_is_in_the_keyring_where_there_is_one(commands: Commands, tmp_path: Path) -> None:
    held: dict[tuple[str, str], str] = {}
    ring = ModuleType("keyring")
    ring.__dict__.update(
        get_keyring=SimpleNamespace,
        set_password=lambda service, name, text: held.update({(service, name): text}),
        get_password=lambda service, name: held.get((service, name)),
        delete_password=lambda service, name: held.pop((service, name)),
    )
    fail = ModuleType("keyring.backends.fail")
    fail.__dict__["Keyring"] = int
    commands.env.setitem(sys.modules, "keyring", ring)
    commands.env.setitem(sys.modules, "keyring.backends", ModuleType("keyring.backends"))
    commands.env.setitem(sys.modules, "keyring.backends.fail", fail)
    commands.run("context", "add", "prod", "--url", "https://fleet.example", "--token", TOKEN)
    assert list(held.values()) == [TOKEN]
    assert TOKEN not in file_of(tmp_path).read_text()
    commands.env.setitem(sys.modules, "keyring", None)
    code, sentence = commands.refused("queue", "list", "--context", "prod")
    assert (code, "from the keyring" in sentence, "context prod" in sentence) == (2, True, True)
    commands.env.setitem(sys.modules, "keyring", ring)
    commands.run("context", "remove", "prod")
    assert held == {}


def test_a_file_that_others_may_read_is_refused(commands: Commands, tmp_path: Path) -> None:
    commands.run("context", "add", "prod", "--url", "https://fleet.example", "--token", TOKEN)
    file_of(tmp_path).chmod(0o644)
    code, sentence = commands.refused("queue", "list", "--context", "prod")
    assert code == 2
    assert "chmod 600" in sentence


def test_a_damaged_file_is_named(commands: Commands, tmp_path: Path) -> None:
    commands.run("context", "add", "prod", "--url", "https://fleet.example")
    file_of(tmp_path).write_text("{")
    code, sentence = commands.refused("queue", "list")
    assert (code, str(file_of(tmp_path)) in sentence) == (2, True)


def test_an_unknown_context_names_those_there_are(commands: Commands) -> None:
    sentence = "There is no context 'test': `fleet context add` makes one."
    assert commands.refused("context", "use", "test") == (2, sentence)
    commands.run("context", "add", "prod", "--url", "https://fleet.example")
    for args in (("queue", "list", "--context", "test"), ("context", "use", "test")):
        code, sentence = commands.refused(*args)
        assert (code, "'test' (prod)" in sentence) == (2, True)


@pytest.mark.parametrize("name", sorted(HERE))
def test_a_command_of_this_machine_refuses_another_fleet(commands: Commands, name: str) -> None:
    code, sentence = commands.refused("--url", "https://fleet.example", name)
    assert code == 2
    assert sentence.startswith(f"`fleet {name}` works on the machine of its fleet only")
    assert "leave out --url" in sentence


def test_what_to_leave_out_is_said(commands: Commands) -> None:
    commands.run("context", "add", "prod", "--url", "https://fleet.example")
    commands.run("context", "use", "prod")
    assert "`fleet context use --none` leaves it" in commands.refused("doctor")[1]
    commands.env.setenv("FLEET_URL", "https://other.example")
    assert "`fleet context use --none` leaves it" in commands.refused("doctor")[1]
    commands.env.setenv("FLEET_TOKEN", TOKEN)
    assert "unset FLEET_URL" in commands.refused("doctor")[1]
    assert "https://other.example" in commands.refused("doctor")[1]


def test_a_service_starts_again_though_a_context_is_in_use(commands: Commands) -> None:
    commands.env.setenv("FLEET_BROKER_URL", "redis://broker.example:6379/0")
    commands.run("context", "add", "prod", "--url", "https://fleet.example")
    commands.run("context", "use", "prod")
    assert commands.run("broker", "--url").code == 0


def test_an_empty_url_is_this_machine_though_a_context_is_in_use(commands: Commands) -> None:
    commands.run("context", "add", "prod", "--url", "https://fleet.example")
    commands.run("context", "use", "prod")
    commands.env.setenv("FLEET_URL", "")
    assert commands.run("route", "hello").code == 0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_url_is_taken_before_and_after_the_command(
    commands: Commands, nobody: str, place: int
) -> None:
    args = ["queue", "list"]
    args[place:place] = ["--url", nobody]
    code, sentence = commands.refused(*args)
    assert code == 1
    assert sentence.startswith(f"No fleet answers at {nobody} (")


@pytest.mark.parametrize(
    "args",
    [
        ("queue", "list", "--token", TOKEN),
        ("queue", "list", "--url", "fleet.example:8700"),
        ("queue", "list", "--url", "https://me:secret@fleet.example"),
        ("queue", "list", "--url", "https://fleet.example/?a=1"),
        ("queue", "list", "--url", "https://a.example", "--context", "b"),
        ("context", "add", "two words", "--url", "https://fleet.example"),
        ("context", "use"),
    ],
)
def test_wrong_use_is_one_sentence(commands: Commands, args: tuple[str, ...]) -> None:
    code, sentence = commands.refused(*args)
    assert code == 2
    assert "secret" not in sentence


def test_the_broker_keeps_its_own_option(commands: Commands) -> None:
    """`fleet broker --url` prints the broker's URL."""
    commands.env.setenv("FLEET_BROKER_URL", "redis://broker.example:6379/0")
    assert commands.run("broker", "--url").out.startswith("redis://broker.example:6379")
