"""Agents that give themselves and each other the same work for ever: a limit ends each loop."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.ledger import State, operations, views
from fleet.store import keys
from tests.fakes.provider import Provider
from tests.fixtures.fleet import CELERY, Fleet, fleet_of
from tests.fixtures.marks import LITELLM_WARNINGS
from tests.fixtures.processes import wait_until

pytestmark = LITELLM_WARNINGS

HOST = "import sys; from fleet.supervisor.host import serve; sys.exit(serve(log_level='INFO'))"
HOPS, RATE, PENDING = 4, 3, 2
#: What the fake provider says that a call has cost.
CALL_TOKENS = 19


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Fleet]:
    agent: dict[str, Any] = {
        "runner": "llm",
        "model": "openai/loop",
        "params": {"api_base": provider.url, "api_key": "k"},
        "tools": ["queue"],
    }
    agents = {
        "deep": agent,
        **{name: {**agent, "dispatches_per_minute": RATE} for name in ("x", "y", "z")},
        "poor": {
            **agent,
            "budget": {"tokens_per_day": 5 * CALL_TOKENS},
            # The day ends later, unless it is this long before midnight.
            "retry": {"attempts": 1, "min_age_s": 0, "backoff_s": 0, "deadline_s": 10},
        },
        "busy": agent,
        "full": {**agent, "model": "openai/ok", "max_pending": PENDING},
    }
    folder = tmp_path_factory.mktemp("fleet")
    with fleet_of(folder, agents, sections={"routes": {"max_hops": HOPS}}) as fleet:
        fleet.start("host", sys.executable, "-c", HOST).wait_said(" ready.", times=len(agents))
        fleet.shared().wait_said(" ready.")
        fleet.start("beat", str(CELERY), "-A", "fleet", "beat", "--pidfile=")
        yield fleet


@pytest.fixture(autouse=True)
def all_ends(fleet: Fleet) -> Iterator[None]:
    """After each loop every event has one outcome, and every agent's slot is free."""
    yield
    for row in dispatches(fleet):
        assert State(row["state"]).terminal, row
        assert len(fleet.books.ends(row["dispatch_id"])) == 1
    for name in fleet.settings.agents:
        assert not fleet.books.store.client.hexists(keys.agent(name), "active")
        assert fleet.books.store.client.zcard(keys.due(name)) == 0


def dispatches(fleet: Fleet, *agents: str) -> list[dict[str, Any]]:
    """All of them, oldest first; or those of some agents."""
    page = views.find(fleet.books.store, agent=None, states=(), limit=1000)
    return [row for row in page.dispatches[::-1] if not agents or row["agent"] in agents]


def loop(fleet: Fleet, *agents: str, expected: int) -> list[dict[str, Any]]:
    """Begin a loop with the first of them; the dispatches that came of it, when all have ended."""
    fleet.send(agents[0], json.dumps(agents))

    def over() -> bool:
        found = dispatches(fleet, *agents)
        return len(found) >= expected and all(State(row["state"]).terminal for row in found)

    wait_until(over)
    found = dispatches(fleet, *agents)
    assert len(found) == expected
    return found


def told(fleet: Fleet, row: dict[str, Any]) -> list[str]:
    """The errors that the dispatches' tool told the model of a turn; none where it worked."""
    journal = fleet.books.ledger.steps(row["dispatch_id"])
    steps = [json.loads(journal[number]) for number in sorted(journal, key=int)]
    results = [json.loads(step["result"]) for step in steps if step["name"].startswith("tool")]
    return [result.get("error", "") for result in results]


def test_hops_end_an_agent_that_dispatches_to_itself(fleet: Fleet) -> None:
    found = loop(fleet, "deep", expected=HOPS + 1)
    assert [row["state"] for row in found] == ["completed"] * (HOPS + 1)
    assert [told(fleet, row) for row in found[:-1]] == [[""]] * HOPS
    (last,) = told(fleet, found[-1])
    assert f"routes.max_hops allows {HOPS}" in last


def test_the_rate_ends_agents_that_dispatch_to_each_other(fleet: Fleet) -> None:
    """Each of three gives all three the same again: 121 dispatches within the hops alone."""
    agents = ("x", "y", "z")
    found = loop(fleet, *agents, expected=1 + len(agents) * RATE)
    assert {row["state"] for row in found} == {"completed"}
    refused = [text for row in found for text in told(fleet, row) if text]
    assert len(refused) == len(found) * len(agents) - len(agents) * RATE
    assert all(
        f"You have reached your limit of {RATE} dispatches a minute" in text for text in refused
    )


def test_a_budget_ends_a_loop_in_mid_turn_and_the_journal_stays(
    fleet: Fleet, provider: Provider
) -> None:
    before = len(provider.requests)
    found = loop(fleet, "poor", expected=4)
    # Two calls a turn: the fifth is the last, and the third turn asks for a sixth.
    assert len(provider.requests) - before == 5
    assert [row["state"] for row in found] == ["completed", "completed", "expired", "expired"]
    for row in found[2:]:
        assert f"{5 * CALL_TOKENS} tokens a day" in row["error"]
    names = [
        json.loads(entry)["name"]
        for entry in fleet.books.ledger.steps(found[2]["dispatch_id"]).values()
    ]
    assert sorted(names) == ["llm", "tool queue_dispatch"]
    assert fleet.books.ledger.steps(found[3]["dispatch_id"]) == {}
    # What others may spend is not touched.
    fleet.wait_state(fleet.send("busy", "[]"), "completed")


def test_a_full_queue_is_told_to_who_fills_it(fleet: Fleet) -> None:
    operations.pause(fleet.books.ledger, "full")
    sent = fleet.send("busy", json.dumps(["full"] * (PENDING + 1)))
    fleet.wait_state(sent, "completed")
    *fine, refused = told(fleet, {"dispatch_id": sent})
    assert fine == [""] * PENDING
    assert f"full has {PENDING} events waiting, its max_pending" in refused
    operations.resume(fleet.books.ledger, "full")
    for row in dispatches(fleet, "full"):
        fleet.wait_state(row["dispatch_id"], "completed")
