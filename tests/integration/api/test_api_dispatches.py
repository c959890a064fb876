"""The ledger over HTTP: reading it, and what a person does to a dispatch."""

from typing import Any

import httpx
import pytest

from fleet.config.settings import parse
from fleet.ledger import Ending, Failure, FailureStage, ValkeyLedger
from fleet.store import Store
from tests.integration.api.conftest import Api, release, take_lease


def dispatch_id(answer: httpx.Response) -> str:
    return str(answer.json()["dispatches"][0]["dispatch_id"])


@pytest.fixture
def dead(api: Api, store: Store) -> str:
    """A dispatch of gem's that failed for good."""
    agent = {"runner": "python", "python": "a:b"}
    ledger = ValkeyLedger(store, parse({"agents": {"gem": agent}}))
    token = take_lease(store, ttl_ms=5000)
    sent = dispatch_id(api.send(to="gem", priority=9))
    claim = ledger.claim(token)
    assert claim is not None
    failure = Failure(
        stage=FailureStage.LLM,
        reason="no such model",
        retryable=False,
        message="not: what was said",
    )
    ledger.commit(claim, Ending(failure=failure))
    release(store, token)
    assert claim.dispatch_id == sent
    return sent


def test_a_dispatch_is_shown_without_its_content_unless_asked(api: Api) -> None:
    sent = dispatch_id(api.send(text="what was said", to="archie", session="s-1"))
    record = api.http.get(f"/dispatches/{sent}").json()
    assert (record["dispatch_id"], record["agent"], record["state"]) == (sent, "archie", "queued")
    assert record["session"] == "s-1"
    assert "what was said" not in str(record)
    shown = api.http.get(f"/dispatches/{sent}", params={"content": "1"}).json()
    assert shown["event"]["data"]["text"] == "what was said"


def test_an_event_is_the_parent_of_its_dispatches(api: Api) -> None:
    sent = api.send(id="a/b c", to="@reviewers", text="what was said").json()
    event = api.http.get("/events/a%2Fb%20c").json()
    assert (event["state"], event["route"]) == ("open", "to: @reviewers")
    members = [{name: one[name] for name in ("dispatch_id", "agent")} for one in event["members"]]
    assert members == sent["dispatches"]
    assert "what was said" not in str(event)
    shown = api.http.get("/events/a%2Fb%20c", params={"content": "1"}).json()
    assert shown["event"]["data"]["text"] == "what was said"


def test_an_event_of_a_named_source_is_found_by_both(api: Api) -> None:
    api.send(id="7", source="ci", to="gem")
    refused = api.http.get("/events/7")
    assert refused.status_code == 404
    assert "`source`" in refused.json()["detail"]
    assert api.http.get("/events/7", params={"source": "ci"}).json()["source"] == "ci"


def test_pages_are_newest_first_and_together_whole(api: Api) -> None:
    sent = [dispatch_id(api.send(to="gem")) for _ in range(7)]
    found: list[str] = []
    cursor: dict[str, str] = {}
    while len(found) < 7:
        query: dict[str, Any] = {"agent": "gem", "state": "queued,active", "limit": 3, **cursor}
        page = api.http.get("/dispatches", params=query).json()
        assert len(page["dispatches"]) <= 3
        found += [row["dispatch_id"] for row in page["dispatches"]]
        cursor = {"cursor": page["cursor"]}
    assert found[:7] == sent[::-1]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("agent=nobody", "agent"),
        ("agent=archie&agent=gem", "agent"),
        ("agent=", "agent"),
        ("state=sleeping", "state"),
        ("state=queued&state=", "state"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=%D9%A1", "limit"),
        ("cursor=(inf", "cursor"),
        ("cursor=", "cursor"),
    ],
)
def test_a_wrong_parameter_is_named(api: Api, query: str, name: str) -> None:
    answer = api.http.get(f"/dispatches?{query}")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"`{name}` ")


def test_content_is_asked_for_with_1(api: Api) -> None:
    sent = dispatch_id(api.send())
    assert api.http.get(f"/dispatches/{sent}?content=yes").status_code == 400


@pytest.mark.parametrize("name", ["nothing", "%00", "%ff", "a%0ab", "x" * 4000])
@pytest.mark.parametrize("verb", ["", "/cancel", "/retry", "/approve", "/reject"])
def test_what_is_not_known_is_not_found(api: Api, name: str, verb: str) -> None:
    method = "POST" if verb else "GET"
    body = {"reason": "no"} if verb == "/reject" else None
    answer = api.http.request(method, f"/dispatches/{name}{verb}", json=body)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_waiting_dispatch_is_cancelled_once_and_for_all(api: Api) -> None:
    sent = dispatch_id(api.send(to="gem"))
    for _ in range(2):
        answer = api.http.post(f"/dispatches/{sent}/cancel", json={"reason": "not needed"})
        assert answer.status_code == 200
        assert answer.json() == {"dispatch_id": sent, "state": "cancelled"}
    assert api.http.get(f"/dispatches/{sent}").json()["error"] == "not needed"


@pytest.mark.parametrize(
    "body", [b'{"reason": "a\\nb"}', b'{"reason": 7}', b'{"now": true}', b"[]", b"{"]
)
def test_a_reason_is_one_line(api: Api, body: bytes) -> None:
    sent = dispatch_id(api.send(to="gem"))
    kind = {"Content-Type": "application/json"}
    answer = api.http.post(f"/dispatches/{sent}/cancel", content=body, headers=kind)
    assert answer.status_code == 400
    assert api.http.get(f"/dispatches/{sent}").json()["state"] == "queued"
    assert api.http.post(f"/dispatches/{sent}/cancel").status_code == 200


def test_a_dead_one_is_queued_again(api: Api, dead: str) -> None:
    assert api.http.get(f"/dispatches/{dead}").json()["state"] == "dead"
    assert api.http.post(f"/dispatches/{dead}/cancel").status_code == 409
    answer = api.http.post(f"/dispatches/{dead}/retry")
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    record = api.http.get(f"/dispatches/{dead}").json()
    assert (record["state"], record["generation"]) == ("queued", 2)
    assert api.http.post(f"/dispatches/{dead}/cancel").status_code == 200
    assert "only a dead one" in api.http.post(f"/dispatches/{dead}/retry").json()["detail"]


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_what_is_not_parked_cannot_be_decided(api: Api, verb: str) -> None:
    sent = dispatch_id(api.send())
    answer = api.http.post(f"/dispatches/{sent}/{verb}", json={"reason": "no"})
    assert answer.status_code == 409
    assert "not parked" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/events"), ("DELETE", "/dispatches/x"), ("POST", "/bus"), ("PUT", "/health")],
)
def test_another_method_is_told_which_there_are(api: Api, method: str, path: str) -> None:
    answer = api.http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_why_it_failed_is_told_and_what_was_said_only_with_content(api: Api, dead: str) -> None:
    (hidden,) = api.http.get(f"/dispatches/{dead}").json()["failures"]
    assert (hidden["attempt"], hidden["reason"]) == (1, "no such model")
    assert hidden["message"] == "(hidden)"
    (shown,) = api.http.get(f"/dispatches/{dead}", params={"content": "1"}).json()["failures"]
    assert shown == {**hidden, "message": "not: what was said"}
    rows = api.http.get("/dispatches", params={"state": "dead"})
    assert "what was said" not in rows.text
