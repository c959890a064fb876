"""A model calls tools, in a real worker; the provider's log says what was paid for."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.ledger import views
from fleet.store import keys
from tests.fakes.provider import Provider, Request
from tests.fixtures.fleet import Fleet, Tables, fleet_of
from tests.fixtures.marks import LITELLM_WARNINGS
from tests.fixtures.processes import wait_until
from tests.fixtures.tools import CALLS

pytestmark = LITELLM_WARNINGS

#: Rounds of calls, each of a name and its arguments.
Script = list[list[list[Any]]]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Fleet]:
    archie = {
        "runner": "llm",
        "model": "openai/script",
        "params": {"api_base": provider.url, "api_key": "k"},
        "tools": ["kit", "slow", "queue"],
        "max_tool_rounds": 4,
        "dispatches_per_minute": 5,
        "dispatch_to": ["archie", "gem"],
    }
    sections: Tables = {
        "tools.kit": {"python": "tests.fixtures.tools:kit"},
        "tools.slow": {
            "python": "tests.fixtures.tools:slow",
            "timeout_s": 0.5,
            "max_result_bytes": 1000,
        },
    }
    agents = {"archie": archie, "gem": {}, "other": {}}
    folder = tmp_path_factory.mktemp("fleet")
    with fleet_of(folder, agents, sections=sections) as fleet:
        fleet.ready("archie")
        yield fleet


def send(fleet: Fleet, script: Script, **fields: Any) -> str:
    return fleet.send("archie", json.dumps(script), **fields)


def asked(provider: Provider, script: Script) -> list[Request]:
    """The requests of the turn that was told so."""
    text = json.dumps(script)
    return [one for one in provider.requests if one.body["messages"][0]["content"] == text]


def told(provider: Provider, script: Script) -> list[str]:
    """The results of that turn's tools for the model."""
    last = asked(provider, script)[-1].body["messages"]
    return [one["content"] for one in last if one["role"] == "tool"]


def calls(fleet: Fleet) -> list[list[str]]:
    """The diary of the tools: each tool and its arguments."""
    path = fleet.folder / CALLS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def results(fleet: Fleet, provider: Provider, script: Script, **fields: Any) -> list[str]:
    fleet.wait_state(send(fleet, script, **fields), "completed")
    return told(provider, script)


def test_a_model_reads_and_writes_and_answers(fleet: Fleet, provider: Provider) -> None:
    script: Script = [
        [["read_note", {"name": "a"}], ["read_note", {"name": "b"}], ["write_note", {"name": "c"}]],
        [["read_note", {"name": "d"}]],
    ]
    dispatch_id = send(fleet, script)
    fleet.wait_state(dispatch_id, "completed")
    assert told(provider, script) == ["note a", "note b", "wrote c", "note d"]
    record = views.get(fleet.books.store, dispatch_id)
    assert record is not None
    assert [step["name"] for step in record["steps"]] == [
        *("llm", "tool read_note", "tool read_note", "tool write_note"),
        *("llm", "tool read_note", "llm"),
    ]
    offered = [one["function"]["name"] for one in asked(provider, script)[0].body["tools"]]
    assert {"read_note", "read_much", "queue_dispatch", "queue_activity"} <= set(offered)


def test_whatever_goes_wrong_is_told_to_the_model(fleet: Fleet, provider: Provider) -> None:
    script: Script = [
        [
            ["no_such_tool", {}],
            ["read_note", "{not json"],
            ["read_note", "[1]"],
            ["read_note", {"nome": "a"}],
            ["write_wrong", {}],
            ["read_never", {}],
            ["read_much", {"megabytes": 50}],
            ["write_note", {"name": "after all that"}],
        ]
    ]
    found = results(fleet, provider, script)
    expected = [
        "there is no tool 'no_such_tool'",
        "not valid JSON",
        "must be a JSON object",
        "the arguments are wrong",
        "RuntimeError: the disk is full",
        "took longer than 0.5 s",
        "52428800 characters, 1000 bytes are allowed",
        "wrote after all that",
    ]
    assert all(part in text for part, text in zip(expected, found, strict=True))
    assert len(found[6]) <= 1000


def test_two_hundred_calls_at_once(fleet: Fleet, provider: Provider) -> None:
    script: Script = [[["read_note", {"name": str(number)}] for number in range(200)]]
    found = results(fleet, provider, script)
    assert found[:32] == [f"note {number}" for number in range(32)]
    assert len(found) == 200
    assert all("only 32 calls" in text for text in found[32:])


def test_a_model_that_never_answers_is_stopped(fleet: Fleet, provider: Provider) -> None:
    stubborn: Script = [[["read_note", {"name": "again"}]]] * 99
    record = fleet.wait_state(send(fleet, stubborn), "dead")
    assert (record["stage"], record["error_kind"]) == ("tool", "ToolRounds")
    assert len(asked(provider, stubborn)) == 6
    assert "may use no more tools" in told(provider, stubborn)[-1]
    obedient = stubborn[:5]
    fleet.wait_state(send(fleet, obedient), "completed")


def test_a_killed_turn_pays_for_nothing_twice(fleet: Fleet, provider: Provider) -> None:
    script: Script = [
        [["read_note", {"name": "k1"}], ["write_note", {"name": "k2"}]],
        [["read_note", {"name": "k3"}], ["write_gate", {"name": "k4"}]],
    ]
    dispatch_id = send(fleet, script)
    wait_until(lambda: ["write_gate", "k4"] in calls(fleet))
    (child,) = fleet.processes[0].children()
    os.kill(child, signal.SIGKILL)
    fleet.open_gate("k4")
    record = fleet.wait_state(dispatch_id, "completed")
    assert record["attempt"] == "2"
    assert len(asked(provider, script)) == 3
    mine = [call for call in calls(fleet) if call[1] in ("k1", "k2", "k3", "k4")]
    assert mine == [
        *(["read_note", "k1"], ["write_note", "k2"], ["read_note", "k3"]),
        *(["write_gate", "k4"], ["write_gate", "k4"]),
    ]
    assert told(provider, script) == ["note k1", "wrote k2", "note k3", "through k4"]


def test_agents_give_each_other_work(fleet: Fleet, provider: Provider) -> None:
    fleet.books.store.client.delete("fleet:asked:archie")
    script: Script = [
        [["queue_dispatch", {"to": "gem", "text": "say hello"}]],
        [["queue_list", {"agent": "gem"}], ["queue_activity", {}]],
    ]
    sent, listed, activity = map(json.loads, results(fleet, provider, script))
    (dispatch,) = sent["dispatches"]
    assert dispatch["agent"] == "gem"
    assert [one["dispatch_id"] for one in listed] == [dispatch["dispatch_id"]]
    assert activity["gem"] == {"online": False, "active": None, "queued": 1, "paused": False}
    payload = fleet.books.record(dispatch["dispatch_id"])["event"]
    event = json.loads(str(fleet.books.store.client.get(keys.payload(payload))))
    assert (event["source"], event["hops"]) == ("agent:archie", 1)
    script = [
        [["queue_status", dispatch | {"agent": None}]],
        [["queue_status", {"dispatch_id": dispatch["dispatch_id"]}]],
        [["queue_cancel", {"dispatch_id": dispatch["dispatch_id"], "reason": "no need"}]],
    ]
    wrong, status, cancelled = map(json.loads, results(fleet, provider, script))
    assert "arguments are wrong" in wrong["error"]
    assert status["state"] == "queued"
    assert cancelled == {"dispatch_id": dispatch["dispatch_id"], "state": "cancelled"}


def test_what_an_agent_may_not_do_is_said(fleet: Fleet, provider: Provider) -> None:
    fleet.books.store.client.delete("fleet:asked:archie")
    foreign = fleet.send("other", "say it")
    script: Script = [
        [
            ["queue_dispatch", {"to": "other", "text": "x"}],
            ["queue_dispatch", {"to": "nobody", "text": "x"}],
            ["queue_cancel", {"dispatch_id": foreign}],
            ["queue_status", {"dispatch_id": "no such\nid"}],
        ]
    ]
    found = results(fleet, provider, script)
    assert "archie may not dispatch to other" in found[0]
    assert "nobody" in found[1]
    assert "was not dispatched by you" in found[2]
    assert "There is no dispatch" in found[3]
    assert fleet.books.state(foreign) == "queued"


def test_an_agent_that_dispatches_to_itself_is_stopped(fleet: Fleet, provider: Provider) -> None:
    fleet.books.store.client.delete("fleet:asked:archie")
    script: Script = [[["queue_dispatch", {"to": "archie", "text": "[]"}]]]
    # As if it came through as many turns as may be.
    (found,) = results(fleet, provider, script, hops=8)
    assert "routes.max_hops allows 8" in found


def test_an_agent_dispatches_only_so_often(fleet: Fleet, provider: Provider) -> None:
    fleet.books.store.client.delete("fleet:asked:archie")
    many = [["queue_dispatch", {"to": "gem", "text": f"say {number}"}] for number in range(7)]
    found = results(fleet, provider, [many])
    assert ['"dispatches"' in text for text in found] == [True] * 5 + [False] * 2
    assert "try again in" in found[-1]
