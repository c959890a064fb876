"""The command line on a fleet elsewhere that asks for tokens: what their scopes allow."""

import json
import threading

import pytest

from fleet import Fleet
from fleet.auth import tokens
from fleet.store import Store
from tests.fixtures.commands import Commands
from tests.fixtures.processes import wait_until
from tests.integration.api.conftest import Api


def token_of(store: Store, *scopes: str) -> str:
    """The text of a new token."""
    _, text = tokens.create(store, "ops-phone", scopes)
    return text


@pytest.fixture(scope="module")
def admin(store: Store) -> str:
    """The token of an administrator; since then the API asks for tokens."""
    return token_of(store, "admin")


@pytest.fixture
def guarded(admin: str, api: Api) -> str:
    """The URL of the API, which asks for tokens."""
    api.http.headers["authorization"] = f"Bearer {admin}"
    assert api.http.get("/agents").status_code == 200
    return api.url


@pytest.fixture
def sent(api: Api, guarded: str) -> dict[str, str]:
    """A dispatch of each of two agents: agent -> id."""
    answers = [api.send(to=agent).json() for agent in ("archie", "small")]
    return {one["dispatches"][0]["agent"]: one["dispatches"][0]["dispatch_id"] for one in answers}


def test_a_token_may_do_what_its_scopes_say(
    commands: Commands, guarded: str, store: Store, sent: dict[str, str]
) -> None:
    commands.env.setenv("FLEET_URL", guarded)
    code, sentence = commands.refused("queue", "list")
    assert (code, "needs a token" in sentence) == (1, True)
    commands.env.setenv("FLEET_TOKEN", token_of(store, "read:small", "send:small"))
    rows = json.loads(commands.run("queue", "list", "--json").out)["dispatches"]
    assert {row["agent"] for row in rows} == {"small"}
    kinds = commands.run("events", "--json").out.splitlines()
    assert kinds
    assert {json.loads(line)["agent"] for line in kinds} == {"small"}
    for args, scope in {
        ("queue", "cancel", sent["archie"]): "operate",
        ("send", "hello", "--to", "archie"): "send:archie",
        ("route", "hello", "--to", "archie"): "send:archie",
        ("queue", "drain", "small", "--confirm"): "operate",
        ("queue", "move", "small", "archie"): "operate",
        ("dlq", "purge", "--confirm"): "operate",
        ("token", "list"): "admin",
    }.items():
        code, sentence = commands.refused(*args)
        assert (code, f"does not have the scope {scope};" in sentence) == (1, True), sentence
    assert commands.refused("queue", "inspect", sent["archie"])[0] == 1


def test_who_may_not_read_is_told_before_the_event_is_sent(
    commands: Commands, guarded: str, store: Store, admin: str
) -> None:
    commands.env.setenv("FLEET_TOKEN", token_of(store, "send:gem"))
    args = ("send", "hello", "--to", "gem", "--idempotency-key", "unread", "--wait")
    code, sentence = commands.refused(*args, "--url", guarded)
    assert (code, "scope read:" in sentence) == (1, True)
    assert (
        commands.refused("queue", "inspect", "unread", "--url", guarded, "--token", admin)[0] == 1
    )


def test_a_decision_is_made_in_the_name_of_the_token(
    commands: Commands, guarded: str, store: Store, api: Api
) -> None:
    parked = api.send(to="chain:ask").json()["dispatches"][0]["dispatch_id"]
    commands.env.setenv("FLEET_TOKEN", token_of(store, "operate", "read:*"))
    args = ("reject", parked, "--reason", "no", "--by", "somebody", "--json", "--url", guarded)
    assert json.loads(commands.run(*args).out)["by"] == "ops-phone"


def test_the_revoked_token_of_a_context_is_told_with_its_name(
    commands: Commands, guarded: str, store: Store
) -> None:
    _, text = tokens.create(store, "of-prod", ["admin"])
    made = commands.run("context", "add", "prod", "--url", guarded, "--token", text)
    assert made.code == 0, made.err
    commands.run("context", "use", "prod")
    assert commands.run("queue", "list").code == 0
    revoked = commands.run("token", "revoke", "of-prod")
    assert "is revoked" in revoked.out
    code, sentence = commands.refused("queue", "list")
    assert code == 1
    assert sentence.startswith(f"The token of context prod was revoked at {guarded}")
    wrong = f"fleet_{'0' * 12}_{'A' * 43}"
    code, sentence = commands.refused("queue", "list", "--token", wrong)
    assert sentence.startswith(f"The token given by --token is none of the fleet at {guarded}")
    assert wrong not in sentence


def test_who_follows_with_a_token_that_is_revoked_is_told(
    commands: Commands, guarded: str, store: Store, admin: str
) -> None:
    commands.env.setattr("fleet.cli.events.RETRY_S", 0.05)
    text = token_of(store, "read:*")
    thread = threading.Thread(target=revoke_once_followed, args=(guarded, admin, text))
    thread.start()
    said = commands.run("events", "--follow", "--url", guarded, "--token", text)
    thread.join()
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith("fleet: The token given by --token was revoked")


def revoke_once_followed(url: str, admin: str, text: str) -> None:
    with Fleet(url, token=admin) as fleet:
        wait_until(lambda: fleet.health()["bus"]["clients"] == 1)
        fleet.revoke_token(text.split("_")[1])


def test_a_token_is_made_listed_and_revoked_from_elsewhere(
    commands: Commands, guarded: str, store: Store
) -> None:
    commands.env.setenv("FLEET_TOKEN", token_of(store, "admin"))
    commands.env.setenv("FLEET_URL", guarded)
    made = commands.run("token", "create", "ci", "--scope", "send:gem", "--rate", "5")
    text = made.out.strip()
    assert made.code == 0, made.err
    assert text not in made.err
    (row,) = [
        one
        for one in json.loads(commands.run("token", "list", "--json").out)
        if one["name"] == "ci"
    ]
    assert (row["scopes"], row["rate_per_s"], "digest" in row) == (["send:gem"], 5.0, False)
    assert commands.run("send", "hello", "--to", "gem", "--token", text).code == 0
    assert "(ci) is revoked" in commands.run("token", "revoke", "ci").out
    assert "was revoked before" in commands.run("token", "revoke", "ci").out
