"""From a provider's stream through a worker and the store to a listener of the API, all real."""

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fleet.store import keys
from fleet.store.calls import AgentCall
from tests.fakes.answers import TEXT
from tests.fakes.provider import Provider
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.listening import Screen, listen
from tests.fixtures.marks import LITELLM_WARNINGS

pytestmark = LITELLM_WARNINGS

#: What each agent's provider does; see `tests.fakes.provider`.
MODELS = {"steady": "slow", "faulty": "cut"}
_SERVE = (
    "from fleet.api.server import serve; serve(announce=lambda url: print(url + '.', flush=True))"
)


def is_outcome(name: str, _: dict[str, Any]) -> bool:
    return name == "outcome"


def is_token(name: str, _: dict[str, Any]) -> bool:
    return name == "token"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Fleet]:
    params = {"api_base": provider.url, "api_key": "sk-x"}
    agents: dict[str, dict[str, Any]] = {
        name: {
            "runner": "llm",
            "model": f"openai/{model}",
            "params": params,
            "stream": True,
        }
        for name, model in MODELS.items()
    }
    with fleet_of(tmp_path_factory.mktemp("fleet"), agents) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def url(fleet: Fleet) -> str:
    api = fleet.start("api", sys.executable, "-c", _SERVE, FLEET_API__PORT="0")
    api.wait_said(".\n")
    return api.said().split()[-1].rstrip(".")


def test_a_worker_killed_in_mid_stream_is_a_retry_and_no_text_is_doubled(
    fleet: Fleet, url: str, provider: Provider
) -> None:
    (worker,) = fleet.ready("steady")
    dispatch_id = fleet.send("steady", "count")
    with listen(url, dispatch_id) as listening:
        while len(listening.screen.text) < len("one two three"):
            listening.until(is_token)
        (child,) = worker.children()
        os.kill(child, signal.SIGKILL)
        events = listening.until(is_outcome)
    assert [data["reason"] for name, data in events if name == "reset"] == ["retry"]
    assert listening.screen.text == TEXT
    assert listening.screen.gaps == 0
    outcome = events[-1][1]
    assert (outcome["state"], outcome["answer"], outcome["attempt"]) == ("completed", TEXT, 2)
    assert not [name for name, _ in events if name == "resync"]
    assert provider.count("slow") == 2


def test_a_client_that_comes_back_goes_on_where_it_was(fleet: Fleet, url: str) -> None:
    dispatch_id = fleet.send("steady", "count again")
    screen = Screen()
    with listen(url, dispatch_id, screen=screen) as first:
        first.until(is_token)
        cursor = first.cursor
    with (
        listen(url, dispatch_id, cursor, screen) as second,
        listen(url, dispatch_id) as other,
    ):
        events = second.until(is_outcome)
        other.until(is_outcome)
    assert screen.text == other.screen.text == TEXT
    assert screen.gaps == 0
    assert {name for name, _ in events} == {"token", "outcome"}
    with listen(url, dispatch_id, cursor) as ended:
        assert [name for name, _ in ended.rest()] == ["outcome"]


def test_a_broken_stream_is_a_failure_and_never_an_answer(fleet: Fleet, url: str) -> None:
    dispatch_id = fleet.send("faulty", "count")
    with listen(url, dispatch_id) as listening:
        fleet.ready("faulty")
        *_, (_, outcome) = listening.rest()
    assert (outcome["state"], outcome["stage"], outcome["retryable"]) == ("dead", "llm", True)
    assert "answer" not in outcome
    assert fleet.books.store.client.get(keys.outcome(dispatch_id)) is None
    assert listening.screen.text == "one two three "


def test_no_text_is_on_the_bus_or_in_a_log(fleet: Fleet, url: str) -> None:
    assert "three" not in str(fleet.books.bus())
    assert not [process.log for process in fleet.processes if "two three" in process.said()]


def test_an_unknown_dispatch_is_a_404(url: str) -> None:
    answer = httpx.get(f"{url}/dispatches/nobody/stream", trust_env=False)
    assert (answer.status_code, answer.json()["title"]) == (404, "Not Found")


def test_the_api_ends_although_somebody_listens(fleet: Fleet, url: str) -> None:
    """The last test of the file: the API is gone afterwards."""
    api = next(process for process in fleet.processes if "http" in process.said()[:4])
    dispatch_id = fleet.send("steady", "wait", priority=0)
    fleet.books.ledger.store.run(AgentCall(agent="steady", verb="pause"))
    with listen(url, dispatch_id) as listening:
        api.signal(signal.SIGTERM)
        listening.rest()
    assert api.wait() == 0
