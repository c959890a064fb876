"""Whose event it is: a key belongs to its sender, and nobody speaks in the fleet's own name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet.auth import tokens
from fleet.config.settings import parse
from fleet.delivery.delivery_worker import DeliveryWorker
from fleet.ledger import Ending, State, bus, views
from fleet.ledger.bus import BusEvent
from fleet.runtime import Runtime
from fleet.store import Store, keys, open_store
from tests.fixtures.ledger import Books
from tests.fixtures.mcp_client import call
from tests.fixtures.outcomes import end
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api, MakeApi

TIMEOUT_S = 30.0
AGENT = {"runner": "python", "python": "nobody:nothing"}
#: So that a test need not wait half a minute for a probe.
QUICK = {"FLEET_BREAKER__RESET_TIMEOUT_S": "0.5"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey, store: Store) -> Iterator[Api]:
    """An API with an administrator, so that it is closed."""
    tokens.create(store, "root", ["admin"])
    started = Api(tmp_path_factory.mktemp("api"), valkey.url, **QUICK)
    yield started
    started.close()


class Someone:
    """The holder of a token."""

    def __init__(self, api: Api, store: Store, *scopes: str) -> None:
        token, self.text = tokens.create(store, "test", scopes)
        self.sent_by = f"token:{token.id}"
        self._http, self._headers = api.http, {"Authorization": f"Bearer {self.text}"}

    def send(self, key: str | None = None, **event: Any) -> httpx.Response:
        headers = self._headers | ({} if key is None else {"Idempotency-Key": key})
        return self._http.post("/events", json={"text": "hello", **event}, headers=headers)

    def get(self, path: str, **query: str) -> httpx.Response:
        return self._http.get(path, params=query, headers=self._headers)


@pytest.fixture
def people(api: Api, store: Store) -> tuple[Someone, Someone]:
    return Someone(api, store, "send:*", "read:*"), Someone(api, store, "send:*", "read:*")


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code
    return answer.status_code, str(told["type"]).rpartition(":")[2]


def texts(books: Store, *answers: httpx.Response) -> list[str]:
    """The texts that the agents of these accepted events will be told."""
    found = []
    for answer in answers:
        (dispatch,) = answer.json()["dispatches"]
        event = books.client.hget(keys.dispatch(dispatch["dispatch_id"]), "event")
        found.append(json.loads(str(books.client.get(keys.payload(str(event)))))["data"]["text"])
    return found


def told_of(entry: BusEvent, event_id: str, by: Someone) -> bool:
    return (entry.fields.get("event_id"), entry.fields.get("sent_by")) == (event_id, by.sent_by)


def test_two_senders_that_use_one_key_have_two_events(
    people: tuple[Someone, Someone], store: Store
) -> None:
    one, other = people
    answers = one.send("1", text="first"), other.send("1", text="second")
    assert [answer.json()["duplicate"] for answer in answers] == [False, False]
    assert texts(store, *answers) == ["first", "second"]
    assert one.send("1", text="first").json() == {**answers[0].json(), "duplicate": True}
    assert other.send("1", text="second").json() == {**answers[1].json(), "duplicate": True}
    assert other.send(id="7", source="s").json()["duplicate"] is False
    assert one.send(id="7", source="s").json()["duplicate"] is False, "also with the same content"


@pytest.mark.parametrize("other", [{"text": "other"}, {"to": "gem"}, {"session": "s"}])
def test_other_content_under_ones_own_key_is_refused(
    other: dict[str, str], people: tuple[Someone, Someone], store: Store
) -> None:
    one, _ = people
    first = one.send("used", text="s3cret")
    answer = one.send("used", **{"text": "s3cret", **other})
    assert problem(answer) == (409, "idempotency-conflict")
    assert "s3cret" not in answer.text
    assert "Retry-After" not in answer.headers
    again = one.send("used", text="s3cret", time="2026-01-01T00:00:00Z")
    assert again.json() == {**first.json(), "duplicate": True}
    assert texts(store, first) == ["s3cret"]


def test_in_a_batch_only_the_one_that_differs_is_refused(
    api: Api, people: tuple[Someone, Someone]
) -> None:
    headers = {"Authorization": f"Bearer {people[0].text}", "Idempotency-Key": "batch"}
    api.http.post("/events", json=[{"text": "a"}, {"text": "b"}], headers=headers)
    answers = api.http.post("/events", json=[{"text": "a"}, {"text": "c"}], headers=headers).json()
    assert answers[0]["duplicate"] is True
    assert answers[1]["error"]["status"] == 409


@pytest.mark.parametrize("source", ["agent:echo", "chain:x", "mcp:api", "upstream:x", " Agent : x"])
def test_nobody_speaks_in_the_fleets_own_name(
    source: str, api: Api, people: tuple[Someone, Someone]
) -> None:
    answer = people[0].send(source=source)
    assert problem(answer) == (400, "invalid-event")
    assert answer.json()["detail"].startswith("`source`")
    cloud: Any = {"specversion": "1.0", "id": "1", "source": source, "data": {"text": "x"}}
    assert people[0].send(**cloud).status_code == 400
    for media_type in ("application/json", "application/cloudevents-batch+json"):
        headers = {"Authorization": f"Bearer {people[0].text}", "Content-Type": media_type}
        batch = json.dumps([{"text": "x", "source": source}, cloud])
        told = api.http.post("/events", content=batch, headers=headers).json()
        assert [one["error"]["detail"][:8] for one in told] == ["`source`"] * 2


def test_an_event_is_found_by_whoever_may_read_it(
    api: Api, store: Store, people: tuple[Someone, Someone]
) -> None:
    one, other = people
    one.send("mine", text="first")
    found = one.get("/events/mine").json()
    assert found["sent_by"] == one.sent_by
    assert other.get("/events/mine").json() == found
    assert Someone(api, store, "read:gem").get("/events/mine").status_code == 404
    other.send("mine", text="second")
    assert one.get("/events/mine").json() == found
    assert other.get("/events/mine").json()["sent_by"] == other.sent_by
    third = Someone(api, store, "read:*")
    answer = third.get("/events/mine")
    assert problem(answer) == (409, "not-possible")
    assert "sent_by" in answer.json()["detail"]
    assert third.get("/events/mine", sent_by=one.sent_by).json() == found
    assert third.get("/events/mine", sent_by="token:nobody").status_code == 404
    told = [entry.type for entry in bus.tail(store, 100) if told_of(entry, "mine", one)]
    assert told == ["event_accepted"]
    dispatch_id = found["members"][0]["dispatch_id"]
    assert one.get(f"/dispatches/{dispatch_id}").json()["sent_by"] == one.sent_by


def test_the_tools_keep_the_same_rule(api: Api, people: tuple[Someone, Someone]) -> None:
    first = call(api.url, "queue_dispatch", people[0].text, to="gem", text="a", id="job")
    other = call(api.url, "queue_dispatch", people[1].text, to="gem", text="b", id="job")
    assert (first.refused, other.refused) == (False, False)
    refused = call(api.url, "queue_dispatch", people[0].text, to="gem", text="c", id="job")
    assert refused.refused
    assert "other content" in refused.text


def test_a_forged_outcome_is_not_taken_for_the_real_one(
    api: Api, store: Store, people: tuple[Someone, Someone]
) -> None:
    agents = {"archie": {**AGENT, "deliver": ["to_gem"]}, "gem": AGENT}
    books = Books(store, parse({"agents": agents, "deliveries": {"to_gem": {"agent": "gem"}}}))
    (dispatch_id,) = books.accept("archie", id="asked", priority=9)
    assert end(books, Ending(answer="the answer"), "archie") == State.ANNOUNCING
    forged = {"source": "agent:archie", "id": f"{dispatch_id}.1.to_gem", "to": "gem"}
    Someone(api, store, "send:gem").send(**forged, text="forged")
    DeliveryWorker(store, books.settings, lambda: books.intake).deliver(dispatch_id)
    told = [row["dispatch_id"] for row in views.find(store, agent="gem", limit=1000).dispatches]
    events = [views.get(store, one, content=True) for one in told]
    assert "the answer" in [one["event"]["data"]["text"] for one in events if one]


def test_the_rules_hold_while_the_broker_is_away(make_api: MakeApi, tmp_path: Path) -> None:
    server = Valkey(tmp_path, durable=True).start()
    try:
        store = open_store(server.url)
        tokens.create(store, "root", ["admin"])
        api = make_api(server.url, **QUICK)
        one, other = (Someone(api, store, "send:*", "read:*") for _ in range(2))
        before = one.send("before", text="first")
        server.kill()
        answers = one.send("1", text="first"), other.send("1", text="second")
        assert [answer.json()["duplicate"] for answer in answers] == [False, False]
        assert problem(one.send("1", text="third")) == (409, "idempotency-conflict")
        assert one.send("1", text="first").json() == {**answers[0].json(), "duplicate": True}
        assert one.send(source="agent:archie").status_code == 400
        # Here nobody can know that this key was used.
        assert one.send("before", text="other").status_code == 202
        server.start()

        def imported() -> bool:
            gate = one.get("/health").json()["g4"]
            return bool(gate["spooled"] == 0 and gate["breaker"] == "closed")

        wait_until(imported, TIMEOUT_S)
        assert texts(store, before, *answers) == ["first", "first", "second"]
        assert other.send("1", text="second").json()["duplicate"] is True
        settings = parse({"agents": {"archie": AGENT}, "fleet": {"data_dir": str(api.data_dir)}})
        aside = Runtime(settings).spool.quarantined()
        (reason,) = [entry.reason for _, state in aside for entry in state.ordered()]
        assert "other content" in reason
    finally:
        server.kill()
