"""The command line without a fleet: its help, its shared options, its answers to wrong use."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fleet import runtime
from fleet.cli import COMMANDS, cli, main
from fleet.cli.base import Group
from fleet.config.settings import load


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration of the developer's; none of a test's is kept."""
    for name in [name for name in os.environ if name.startswith("FLEET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FLEET_CONFIG", "")
    monkeypatch.chdir(tmp_path)
    load.cache_clear()
    yield
    load.cache_clear()
    runtime.set_current(None)


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def commands(group: click.Group = cli, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its path, groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")


ALL = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_overview_is_the_commands_own(name: str) -> None:
    assert (ALL[name].help or "").splitlines()[0] == COMMANDS[name][1]


@pytest.mark.parametrize(("broken", "code"), [(0, 0), (2, 1)])
def test_a_benchmark_that_broke_a_promise_exits_with_1(
    broken: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.bench.route.run", lambda: {"name": "route", "broken": broken})
    assert run("bench", "route") == code


@pytest.mark.parametrize("path", ALL)
def test_every_command_takes_the_shared_options_and_has_help(path: str) -> None:
    command = ALL[path]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--config"} <= options
    assert command.help
    if isinstance(command, click.Group):
        assert isinstance(command, Group)


def test_the_documented_commands_exist() -> None:
    assert ALL.keys() >= {
        *("up", "host", "send", "events", "health", "route", "bench", "demo", "api", "broker"),
        *("agents", "agents pause", "agents resume", "agents show"),
        *("queue stats", "queue list", "queue inspect", "queue retry", "queue cancel"),
        *("queue drain", "dlq list", "dlq show", "dlq replay", "dlq purge"),
    }


def test_help_and_version_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "fleet [OPTIONS] COMMAND" in capsys.readouterr().out
    assert run("--version") == 0


def test_nothing_at_all_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "Commands:" in capsys.readouterr().err


def test_a_refusal_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("route", "hello", "--to", "nobody") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "fleet: There is no agent, group or chain 'nobody' in this fleet.\n"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_json_is_taken_before_and_after_the_command(
    place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["route", "@gem hello"]
    args.insert(place, "--json")
    assert run(*args) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["agents"], said["reason"]) == (["gem"], "mentions: @gem")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_config_is_taken_before_and_after_the_command(
    place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other.toml").write_text('[agents.solo]\nmodel = "m"\n[routes]\ndefault = ["solo"]\n')
    args = ["route", "hello"]
    args[place:place] = ["--config", "other.toml"]
    assert run(*args) == 0
    assert capsys.readouterr().out == "solo  routes.default solo\n"


def test_an_events_file_can_be_tried(capsys: pytest.CaptureFixture[str]) -> None:
    Path("event.json").write_text('{"text": "x", "to": "@reviewers"}')
    assert run("route", "event.json") == 0
    assert capsys.readouterr().out == "gem   to @reviewers\nmini  to @reviewers\n"
    assert run("route", "missing.json") == 1
    assert "missing.json" in capsys.readouterr().err


def test_a_chain_is_shown_with_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    Path("chain.toml").write_text(
        """
        agents = { ann = { model = "m" }, bob = { model = "m" } }
        chains = { ship = { stages = ["ann", "@both", "human:ops"] } }
        [routes]
        groups = { both = ["ann", "bob"] }
        [[routes.rules]]
        name = "releases"
        subject = "release/*"
        to = "chain:ship"
        """
    )
    Path("event.json").write_text('{"text": "x", "subject": "release/1"}')
    args = ("route", "event.json", "--config", "chain.toml")
    assert run(*args) == 0
    assert capsys.readouterr().out.splitlines() == [
        "chain:ship  (routes.rules: releases)",
        "  1 ann",
        "  2 @both  (ann, bob; 2 of 2 must approve)",
        "  3 human:ops",
    ]
    assert run(*args, "--json") == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["agents"] for stage in stages] == [["ann"], ["ann", "bob"], []]


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fleet.cli.backend.local.decide", interrupted)
    assert run("route", "hello") == 130


@pytest.mark.parametrize("command", ["agents", "reload"])
def test_the_folder_that_no_fleet_runs_on_is_named_in_full(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == 1
    assert f" on {tmp_path}/.fleet" in capsys.readouterr().err
