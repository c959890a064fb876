"""The command line on a fleet elsewhere: the same output as on its machine, within its scopes."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fleet import Fleet, Unknown
from fleet.cli.backend.remote_live_text import RemoteLiveTexts
from fleet.cli.waiting import Watched
from fleet.config.settings import parse
from fleet.ledger import Ending, Failure, FailureStage, ValkeyLedger
from fleet.store import Store
from fleet.turn.live_text import LiveText
from tests.fixtures.commands import Answer, Commands
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey, free_port
from tests.integration.api.conftest import NO_SPOOL, Api, MakeApi, release, take_lease


@contextmanager
def worker(store: Store, answer: str, agent: str = "gem") -> Iterator[None]:
    """A worker that gives each dispatch of an agent this answer, and says it before."""
    settings = parse({"agents": {agent: {"runner": "python", "python": "a:b"}}})
    ledger = ValkeyLedger(store, settings)
    over = threading.Event()

    def serve() -> None:
        lease = take_lease(store, ttl_ms=60_000, agent=agent)
        while not over.wait(0.02):
            if (claim := ledger.claim(lease)) is not None:
                live = LiveText(store, claim)
                live.publish(1, answer)
                live.close()
                ledger.commit(claim, Ending(answer=answer))
        release(store, lease)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def both(commands: Commands, api: Api, *args: str) -> tuple[Answer, Answer]:
    """A command on this machine, and on the same fleet as one elsewhere."""
    return commands.run(*args), commands.run("--url", api.url, *args)


@pytest.fixture(scope="module")
def sent(api: Api) -> dict[str, str]:
    """Dispatches in several states: agent -> id."""
    answers = [api.send(to=agent, id=f"sent-{agent}").json() for agent in ("archie", "small")]
    parked = api.send(to="chain:ask", id="sent-chain").json()
    found = {one["dispatches"][0]["agent"]: one["dispatches"][0]["dispatch_id"] for one in answers}
    found["ops"] = parked["dispatches"][0]["dispatch_id"]
    (slashed,) = api.send(to="gem", id="order/17").json()["dispatches"]
    for dispatch_id in (found["small"], slashed["dispatch_id"]):
        api.http.post(f"/dispatches/{dispatch_id}/cancel")
    return found


@pytest.mark.parametrize(
    "args",
    [
        ("queue", "list"),
        ("queue", "list", "-a", "small", "-s", "cancelled"),
        ("queue", "list", "--json"),
        ("queue", "stats", "-a", "small"),
        ("queue", "stats", "-a", "human:ops", "--json"),
        ("queue", "inspect", "ID"),
        ("queue", "inspect", "ID", "--show-content", "--json"),
        ("queue", "inspect", "sent-archie", "--show-content"),
        ("queue", "inspect", "order/17"),
        ("dlq", "list"),
        ("agents", "show", "archie", "--json"),
        ("agents", "--json"),
        ("events", "--json"),
        ("events", "--type", "dispatch_parked"),
        ("route", "hello", "--to", "@reviewers"),
        ("route", "hello", "--to", "chain:ask", "--json"),
        ("token", "list"),
        ("alerts", "silence", "memory", "--for", "2h", "--by", "ann", "--comment", "known"),
        ("alerts", "--all", "--json"),
        ("alerts",),
    ],
)
def test_the_output_is_that_of_the_fleets_own_machine(
    commands: Commands, api: Api, sent: dict[str, str], args: tuple[str, ...]
) -> None:
    args = tuple(sent["archie"] if one == "ID" else one for one in args)

    def same() -> bool:
        # The age of what waits, and alerts of the API itself, come between the two.
        here, there = both(commands, api, *args)
        assert (here.code, there.code) == (0, 0), (here.err, there.err)
        return unaged(here.out) == unaged(there.out) != ""

    wait_until(same)


def unaged(text: str) -> str:
    """A text without ages in seconds."""
    return re.sub(r'"(oldest_s|reported_s|held_s)": [0-9.]+|\b[0-9.]+s\b', "", text)


@pytest.mark.parametrize(
    "args",
    [
        ("queue", "inspect", "nothing"),
        ("queue", "inspect", ""),
        ("queue", "inspect", "."),
        ("queue", "cancel", ".."),
        ("agents", "show", ""),
        ("approve", "no/thing"),
        ("queue", "list", "-a", "nobody"),
        ("queue", "retry", "nothing"),
        ("dlq", "show", "nothing"),
        ("approve", "nothing"),
        ("agents", "show", "nobody"),
        ("agents", "pause", "nobody"),
        ("send", "hello", "--to", "nobody"),
        ("alerts", "ack", "memory", "--by", "ann"),
        ("alerts", "unsilence", "memroy"),
        ("token", "revoke", "nobody"),
        ("token", "create", "x", "--scope", "fly"),
    ],
)
def test_what_is_refused_here_is_refused_there_with_the_same_code(
    commands: Commands, api: Api, args: tuple[str, ...]
) -> None:
    code, here = commands.refused(*args)
    there = commands.refused("--url", api.url, *args)
    assert there[0] == code == 1
    assert "version" not in here + there[1], "the fleet knows the call"


def test_too_little_of_an_id_is_told(commands: Commands, api: Api) -> None:
    for elsewhere in ((), ("--url", api.url)):
        _, said = commands.refused(*elsewhere, "queue", "inspect", "ebc3")
        assert said.endswith("Give 6 or more of its characters.")


def test_an_operator_works_from_elsewhere(commands: Commands, api: Api, store: Store) -> None:
    commands.env.setenv("FLEET_URL", api.url)

    def run(*args: str) -> str:
        answer = commands.run(*args)
        assert answer.code == 0, answer.err
        return answer.out

    assert "gem: paused" in run("agents", "pause", "gem")
    assert "was already paused" in run("agents", "drain", "gem")
    assert "gem: resumed" in run("agents", "resume", "gem")
    accepted = json.loads(run("send", "one", "--to", "gem", "--json"))
    dispatch_id = accepted["dispatches"][0]["dispatch_id"]
    assert "cancelled" in run("queue", "cancel", dispatch_id, "--reason", "not needed")
    for text in ("two", "three"):
        run("send", text, "--to", "gem")
    assert json.loads(run("queue", "move", "gem", "archie", "--json"))["moved"] == 2
    run("send", "four", "--to", "gem")
    assert "gem: 1 cancelled" in run("queue", "drain", "gem", "--confirm")
    assert "0 purged" in run("dlq", "purge", "--confirm")
    parked = json.loads(run("send", "five", "--to", "chain:ask", "--json"))["dispatches"][0]
    decided = json.loads(run("approve", parked["dispatch_id"], "--by", "ann", "--json"))
    assert (decided["by"], decided["verdict"]) == ("ann", "approve")
    again, sentence = commands.refused("reject", parked["dispatch_id"], "--reason", "no")
    assert (again, "was approved by ann" in sentence) == (1, True)


def test_work_is_run_again_from_elsewhere(commands: Commands, api: Api, store: Store) -> None:
    commands.env.setenv("FLEET_URL", api.url)

    def read(*args: str) -> Any:
        answer = commands.run(*args, "--json")
        assert answer.code == 0, answer.err
        return json.loads(answer.out)

    accepted = read("send", "one", "--to", "gem")
    old = accepted["dispatches"][0]["dispatch_id"]
    sent = read("queue", "resend", old[:8], "--text", "two")
    assert sent["resent_from"] == old
    new = sent["dispatches"][0]["dispatch_id"]
    shown = read("queue", "inspect", new[:8], "--show-content")
    assert (shown["resent_from"], shown["event"]["data"]["text"]) == (old, "two")
    for one in (old, new):
        assert commands.run("queue", "cancel", one[:8]).out == f"{one}: cancelled\n"
    assert commands.refused("queue", "resend", old, "--to", "nobody")[0] == 1
    settings = parse({"agents": {"gem": {"runner": "python", "python": "a:b"}}})
    ledger, dead = ValkeyLedger(store, settings), []
    for _ in range(2):
        api.send(to="gem", priority=9)
        lease = take_lease(store, ttl_ms=60_000)
        claim = ledger.claim(lease)
        assert claim is not None
        failure = Failure(stage=FailureStage.LLM, reason="no such model", retryable=False)
        ledger.commit(claim, Ending(failure=failure))
        release(store, lease)
        dead.append(claim.dispatch_id)
    assert read("dlq", "replay", "--reason", "nothing like it") == []
    first = read("dlq", "replay", "-a", "gem", "--since", "1h", "--limit", "1")
    assert first == [{"dispatch_id": dead[0], "state": "queued"}]
    assert commands.run("dlq", "replay", "--all").out == "1 queued again\n"
    assert commands.refused("dlq", "replay", "-a", "nobody")[0] == 1
    assert commands.run("queue", "drain", "gem", "--confirm").out == "gem: 2 cancelled\n"


def test_a_resend_waits_for_its_outcome_as_a_send_does(
    commands: Commands, api: Api, store: Store
) -> None:
    accepted = json.loads(commands.run("send", "hello", "--to", "gem", "--json").out)
    old = accepted["dispatches"][0]["dispatch_id"]
    for where in ([], ["--url", api.url]):
        args = ("queue", "resend", old[:8], "--wait", *where)
        late = commands.run(*args, "--timeout", "0.1")
        assert (late.code, "gem is queued" in late.err) == (1, True)
        with worker(store, "forty-two"):
            said = commands.run(*args)
            ended = json.loads(commands.run(*args, "--json").out)
        assert (said.code, said.out) == (0, "forty-two\n")
        assert (ended["resent_from"], ended["outcomes"]) == (old, {"completed": 1})
    assert commands.refused("queue", "resend", old, "--timeout", "1")[0] == 2


def test_a_send_waits_for_its_outcome(commands: Commands, api: Api, store: Store) -> None:
    with worker(store, "forty-two"):
        said = commands.run("send", "hello", "--to", "gem", "--wait", "--url", api.url)
    assert (said.code, said.out) == (0, "forty-two\n")
    assert "dispatch_completed" in said.err


def test_what_a_turn_says_is_seen_while_it_speaks(api: Api, store: Store) -> None:
    dispatch_id = api.send(to="gem").json()["dispatches"][0]["dispatch_id"]
    settings = parse({"agents": {"gem": {"runner": "python", "python": "a:b"}}})
    ledger, lease = ValkeyLedger(store, settings), take_lease(store, ttl_ms=60_000)
    while (claim := ledger.claim(lease)) and claim.dispatch_id != dispatch_id:
        ledger.commit(claim, Ending(answer="of an earlier test"))
    assert claim is not None
    watched = [Watched(dispatch_id, "gem")]
    live = LiveText(store, claim)
    with Fleet(api.url) as fleet, RemoteLiveTexts(fleet, watched) as heard:
        live.publish(1, "It was night.")
        wait_until(lambda: heard.tail(dispatch_id) == "It was night.")
        live.reset(1)
        live.publish(1, "It was day.")
        wait_until(lambda: heard.tail(dispatch_id) == "It was day.")
        live.close()
        ledger.commit(claim, Ending(answer="It was day."))
        assert fleet.wait(dispatch_id, timeout_s=20)["answer"] == "It was day."
        watched[0].record = {}
    release(store, lease)


def test_a_client_asks_and_streams(api: Api, store: Store) -> None:
    with Fleet(api.url) as fleet, worker(store, "forty-two"):
        assert fleet.ask("hello", to="gem", timeout_s=30) == "forty-two"
        sent = fleet.send("hello", to="gem", idempotency_key="twice")
        assert fleet.send("hello", to="gem", idempotency_key="twice").duplicate
        assert "".join(fleet.stream(sent.dispatches[0][0])) in ("forty-two", "")
        entries = fleet.events(after="0-0", timeout_s=5)
        assert next(entries)["type"] == "event_accepted"
        entries.close()
        with pytest.raises(Unknown):
            fleet.dispatch("nothing")


def test_a_chain_is_followed_through_its_stages(commands: Commands, api: Api, store: Store) -> None:
    approving = threading.Thread(target=approve, args=(api, "chained"))
    with worker(store, "seen", "archie"), worker(store, "the last word"):
        approving.start()
        args = ("send", "hello", "--to", "chain:ask", "--idempotency-key", "chained", "--wait")
        said = commands.run(*args, "--timeout", "60", "--json", "--url", api.url)
        approving.join()
    assert said.code == 0, said.err
    assert json.loads(said.out)["chain_state"] == "completed"
    assert [one["agent"] for one in json.loads(said.out)["dispatches"]] == [
        "human:ops",
        "archie",
        "gem",
    ]


def approve(api: Api, event_id: str) -> None:
    """Approve the first stage of a chain, once it is there."""
    wait_until(lambda: api.http.get(f"/events/{event_id}").is_success)
    (member,) = api.http.get(f"/events/{event_id}").json()["members"]
    assert api.http.post(f"/dispatches/{member['dispatch_id']}/approve").is_success


def test_a_fleet_that_restarts_is_waited_for(
    commands: Commands, make_api: MakeApi, valkey: Valkey, store: Store
) -> None:
    port = {"FLEET_API__PORT": str(free_port())}
    first = make_api(valkey.url, **port)

    def restart() -> None:
        wait_until(lambda: first.http.get("/events/restarted").is_success)
        first.end()
        make_api(valkey.url, **port)
        with worker(store, "after the restart"):
            over.wait(60)

    over = threading.Event()
    thread = threading.Thread(target=restart)
    thread.start()
    args = ("send", "x", "--to", "gem", "--idempotency-key", "restarted", "--wait")
    said = commands.run(*args, "--timeout", "60", "--url", first.url)
    over.set()
    thread.join()
    assert (said.code, said.out) == (0, "after the restart\n"), said.err


def test_a_fleet_that_stays_away_is_one_error_in_time(
    commands: Commands, make_api: MakeApi, valkey: Valkey
) -> None:
    commands.env.setattr("fleet.cli.events.RETRY_S", 0.05)
    api = make_api(valkey.url)
    ending = threading.Thread(target=end_once_followed, args=(api,))
    ending.start()
    said = commands.run("events", "--follow", "--timeout", "0.2", "--url", api.url)
    ending.join()
    assert said.code == 1
    last = said.err.splitlines()[-1]
    assert last.startswith(f"fleet: No fleet answers at {api.url} ("), said.err
    assert said.err.count("Waiting for it") == 1


def end_once_followed(api: Api) -> None:
    wait_until(lambda: api.clients() == 1)
    api.end()


def test_the_first_token_is_made_on_the_fleets_machine(commands: Commands, api: Api) -> None:
    args = ("token", "create", "ann", "--scope", "admin", "--url", api.url)
    code, sentence = commands.refused(*args)
    assert (code, "makes the first" in sentence) == (1, True)
    assert api.http.get("/agents").is_success


def test_a_fleet_whose_broker_is_away_is_told_as_such(
    commands: Commands, make_api: MakeApi
) -> None:
    commands.env.setattr("fleet.client.connection.RETRY_S", 0.0)
    api = make_api(f"redis://127.0.0.1:{free_port()}/0", **NO_SPOOL)
    code, sentence = commands.refused("health", "--url", api.url)
    assert (code, sentence.startswith("down: ")) == (1, True)
    assert commands.refused("queue", "list", "--url", api.url)[0] == 1
    code, sentence = commands.refused("send", "hello", "--url", api.url)
    assert (code, "--idempotency-key" in sentence) == (1, True)
