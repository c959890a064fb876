"""Work again on the command line, ids by their beginning, and tables for people."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import runtime
from fleet.auth import tokens
from fleet.cli import main
from fleet.config.settings import load
from fleet.store import Store, keys
from tests.fixtures.ledger import FOR_GOOD, Books
from tests.fixtures.valkey import Valkey

CONFIG = """
[fleet]
broker_url = "{url}"
data_dir = "{folder}/data"
[agents]
archie = {{ runner = "python", python = "a:b", retry = {{ backoff_s = 3600 }} }}
gem = {{ runner = "python", python = "a:b" }}
"""


class Cli:
    """The command line beside a ledger, in this process."""

    def __init__(self, books: Books, capsys: pytest.CaptureFixture[str]) -> None:
        self.books = books
        self._capsys = capsys

    def run(self, *args: str, code: int = 0) -> str:
        """Its output; what it noted where it was refused."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(args)
        said = self._capsys.readouterr()
        assert ended.value.code == code, said
        self.noted = said.err
        return said.out if code == 0 else said.err

    def json(self, *args: str) -> Any:
        return json.loads(self.run(*args, "--json"))

    def dead(self, agent: str = "gem") -> str:
        (one,) = self.books.accept(agent)
        lease = self.books.lease(agent)
        assert lease.acquire()
        self.books.fail(self.books.claimed(lease), FOR_GOOD)
        lease.release()
        return one


@pytest.fixture
def cli(
    store: Store,
    valkey: Valkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    config = tmp_path / "fleet.toml"
    config.write_text(CONFIG.format(url=valkey.url, folder=tmp_path))
    monkeypatch.setenv("FLEET_CONFIG", str(config))
    load.cache_clear()
    runtime.set_current(None)
    yield Cli(Books(store, load()), capsys)
    runtime.current().store.close()
    monkeypatch.undo()
    load.cache_clear()
    runtime.set_current(None)


def editor(folder: Path, script: str) -> str:
    """A program in the place of an editor."""
    program = folder / "editor"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def test_the_beginning_of_an_id_is_taken_by_each_command(cli: Cli) -> None:
    (one,) = cli.books.accept("archie", id="order-17", source="shop")
    short = one[:8]
    assert cli.json("queue", "inspect", short)["dispatch_id"] == one
    assert cli.json("queue", "inspect", "order-")["members"][0]["dispatch_id"] == one
    assert cli.json("queue", "retry", short) == {"dispatch_id": one, "state": "queued"}
    assert "no worker serves the agent" in cli.run("queue", "retry", short)
    assert cli.json("queue", "cancel", short) == {"dispatch_id": one, "state": "cancelled"}
    assert f"{one} is cancelled, not parked" in cli.run("approve", short, "--by", "ann", code=1)
    assert f"{one} is cancelled, not dead" in cli.run("dlq", "show", short, code=1)
    dead = cli.dead()
    assert cli.json("dlq", "show", dead[:6])["dispatch_id"] == dead
    assert cli.json("dlq", "replay", dead[:6]) == [{"dispatch_id": dead, "state": "queued"}]
    assert cli.run("events", "--id", one[:6]).count("dispatch_cancelled") == 1
    assert "give 6 or more" in cli.run("events", "--id", one[:3], code=2)
    assert "did you mean dispatch_cancelled?" in cli.run(
        "events", "--type", "dispatch_canceled", code=2
    )
    assert "Give 6 or more" in cli.run("queue", "cancel", one[:3], code=1)
    assert "Give 6 or more" in cli.run("queue", "inspect", one[:3], code=1)
    assert "Give 6 or more" not in cli.run("queue", "inspect", "nothing", code=1)


def test_an_ambiguous_beginning_names_the_candidates(cli: Cli) -> None:
    made = [f"abcdef{cli.books.accept('gem')[0][6:]}" for _ in range(2)]
    for one in made:
        cli.books.store.client.zadd(keys.IDS, {one: 0})
        cli.books.store.client.hset(keys.dispatch(one), mapping={"agent": "gem", "state": "queued"})
    for command in (["queue", "inspect"], ["queue", "cancel"], ["queue", "resend"], ["approve"]):
        said = cli.run(*command, "abcdef", code=1)
        assert all(f"{one} (gem, queued)" in said for one in made)


def test_a_token_is_revoked_by_the_beginning_of_its_id(cli: Cli) -> None:
    token, _ = tokens.create(cli.books.store, "ci", ["admin"])
    assert "now" in cli.run("token", "list")
    assert cli.json("token", "revoke", token.id[:6]) == {"revoked": [token.id]}


def test_an_old_event_is_sent_again(cli: Cli) -> None:
    (old,) = cli.books.accept("archie", text="first words")
    sent = cli.json("queue", "resend", old[:8], "--text", "other words", "--to", "gem")
    ((new,), (agent,)) = zip(*(one.values() for one in sent["dispatches"]), strict=True)
    assert (sent["resent_from"], agent) == (old, "gem")
    shown = cli.run("queue", "inspect", new, "--show-content")
    assert {"resent_from", old, "words"} <= set(shown.replace('"', " ").split())
    assert new in cli.run("queue", "inspect", old)
    assert cli.run("queue", "resend", old).startswith("accepted ")
    assert f"{old} is queued and goes on as well; `fleet queue cancel {old}`" in cli.noted
    event_id = cli.books.record(old)["event_id"]
    assert cli.json("queue", "resend", event_id)["resent_from"] == old
    pair = cli.books.accept(["archie", "gem"], id="for-both")
    said = cli.run("queue", "resend", "for-bo", code=1)
    assert "has several dispatches, name one: " in said
    assert all(one in said for one in pair)
    said = cli.run("queue", "resend", old, "--to", "nobody", code=1)
    assert said == "fleet: There is no agent, group or chain 'nobody' in this fleet.\n"
    said = cli.run("queue", "resend", old, "--text", "x" * 2**20, code=1)
    assert "The event is larger than 1048576 bytes" in said


@pytest.mark.parametrize("command", ["resend", "retry"])
def test_its_text_is_edited(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (old,) = cli.books.accept("archie", text="first words")
    monkeypatch.setenv("VISUAL", editor(tmp_path, 'sed -i "s/first/other/" "$1"'))
    sent = cli.json("queue", command, old, "--edit")
    new = sent["dispatches"][0]["dispatch_id"]
    record = cli.json("queue", "inspect", new, "--show-content")
    assert record["event"]["data"]["text"] == "other words"
    assert cli.books.state(old) == "queued", "the old one stays as it is"
    monkeypatch.setenv("VISUAL", editor(tmp_path, "true"))
    said = cli.run("queue", command, old, "--edit", code=1)
    assert said == "fleet: Nothing was saved in the editor: nothing was sent.\n"
    assert "--text or --edit" in cli.run("queue", command, old, "--edit", "--text", "x", code=2)


def test_dead_letters_are_replayed_by_filter(cli: Cli) -> None:
    of_gem, of_archie = cli.dead("gem"), cli.dead("archie")
    assert cli.run("dlq", "replay", "--reason", "nothing like it") == "0 queued again\n"
    assert cli.run("dlq", "replay", "--since", "2100-01-01") == "0 queued again\n"
    assert cli.json("dlq", "replay", "--agent", "gem", "--since", "1h", "--limit", "5") == [
        {"dispatch_id": of_gem, "state": "queued"}
    ]
    assert cli.run("dlq", "replay", "--all") == "1 queued again\n"
    assert cli.books.state(of_archie) == "queued"
    assert "is not a moment" in cli.run("dlq", "replay", "--since", "soon", code=2)
    assert "There is no agent 'x'" in cli.run("dlq", "replay", "-a", "x", code=1)
    assert "or filters" in cli.run("dlq", "replay", of_gem, "--agent", "gem", code=2)
    assert "or filters" in cli.run("dlq", "replay", code=2)


@pytest.mark.parametrize("columns", ["60", "100", ""])
def test_tables_show_short_ids_and_distances_within_the_width(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    dead = cli.dead()
    for command in (["queue", "list"], ["dlq", "list"], ["agents"], ["queue", "stats"]):
        lines = cli.run(*command).splitlines()
        assert max(map(len, lines)) <= int(columns or 200)
        if "list" in command:
            (row,) = [line for line in lines if dead[:8] in line]
            assert dead not in row
            assert "now" in row or "s ago" in row
