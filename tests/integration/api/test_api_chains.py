"""People and chains over HTTP: who is asked, who decides, and who may not."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fleet.auth import tokens
from fleet.store import Store
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api

Headers = dict[str, str]


@pytest.fixture(scope="module")
def root(store: Store) -> Headers:
    """An administrator, with whose token the API is closed."""
    return bearer(tokens.create(store, "ann", ["admin"])[1])


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey, root: Headers) -> Iterator[Api]:
    started = Api(tmp_path_factory.mktemp("api"), valkey.url)
    yield started
    started.close()


def bearer(text: str) -> Headers:
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def parked(api: Api, root: Headers) -> str:
    """A dispatch that waits for a person."""
    answer = ask(api, root)
    assert (answer.status_code, answer.json()["chain"]) == (202, "ask")
    (first,) = answer.json()["dispatches"]
    assert first["agent"] == "human:ops"
    return str(first["dispatch_id"])


def ask(api: Api, headers: Headers) -> httpx.Response:
    event = {"to": "chain:ask", "text": "what was said"}
    return api.http.post("/events", json=event, headers=headers)


def decide(api: Api, verb: str, dispatch_id: str, headers: Headers, **body: Any) -> httpx.Response:
    return api.http.post(f"/dispatches/{dispatch_id}/{verb}", json=body, headers=headers)


def test_who_waits_for_a_person_is_listed(api: Api, root: Headers, parked: str) -> None:
    for query in ({"state": "parked"}, {"agent": "human:ops"}):
        rows = api.http.get("/dispatches", params=query, headers=root).json()["dispatches"]
        row = next(row for row in rows if row["dispatch_id"] == parked)
        assert (row["person"], row["chain"], row["chain_stage"]) == ("ops", "ask", 1)
        assert "ops is asked to approve or reject" in row["waiting_for"]
        assert "deadline_at" in row
        assert "what was said" not in str(row)


def test_an_approval_moves_it_once_and_says_who_it_was(
    api: Api, root: Headers, parked: str
) -> None:
    answer = decide(api, "approve", parked, root, reason="go", by="somebody else")
    assert (answer.status_code, answer.json()["state"]) == (200, "completed")
    again = decide(api, "reject", parked, root, reason="no")
    assert (again.status_code, again.json()["type"]) == (409, "urn:fleet:problem:not-possible")
    # A token's name counts, whatever a body says.
    assert f"{parked} was approved by ann at " in again.json()["detail"]
    record = api.http.get(f"/dispatches/{parked}", headers=root).json()
    assert (record["verdict"], record["decided_by"]) == ("approve", "ann")
    assert (record["chain_state"], record["answer"]) == ("running", "(hidden)")


@pytest.mark.parametrize("body", [None, {}, {"reason": " "}])
def test_a_rejection_needs_a_reason(api: Api, root: Headers, parked: str, body: Any) -> None:
    answer = api.http.post(f"/dispatches/{parked}/reject", headers=root, json=body)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:fleet:problem:invalid-reason")
    assert "needs a `reason`" in answer.json()["detail"]
    record = api.http.get(f"/dispatches/{parked}", headers=root).json()
    assert record["state"] == "parked"


def test_a_rejection_ends_the_chain(api: Api, root: Headers, parked: str) -> None:
    answer = decide(api, "reject", parked, root, reason="too early")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    record = api.http.get(f"/dispatches/{parked}", headers=root).json()
    assert (record["chain_state"], record["error"]) == ("rejected", "too early")
    assert record["chain_reason"] == "stage 1 (human:ops) rejects"


@pytest.mark.parametrize(
    "body",
    [{"reason": "a\nb"}, {"reason": 1}, {"reason": "x" * 501}, [], "approve"],
    ids=["two lines", "a number", "too long", "a list", "a string"],
)
def test_a_body_that_says_nothing_clear_decides_nothing(
    api: Api, root: Headers, parked: str, body: Any
) -> None:
    answer = api.http.post(f"/dispatches/{parked}/approve", json=body, headers=root)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:fleet:problem:invalid-reason")
    record = api.http.get(f"/dispatches/{parked}", headers=root).json()
    assert record["state"] == "parked"


def test_a_chain_needs_the_scope_of_each_agent_in_it(api: Api, store: Store) -> None:
    some = bearer(tokens.create(store, "some", ["send:archie"])[1])
    refused = ask(api, some)
    assert refused.status_code == 403
    assert "send:gem" not in refused.text, "it is not told who is in the chain"
    both = bearer(tokens.create(store, "both", ["send:archie", "send:gem"])[1])
    assert ask(api, both).status_code == 202


def test_only_an_operator_decides(api: Api, store: Store, root: Headers, parked: str) -> None:
    reader = bearer(tokens.create(store, "reader", ["read:*", "send:*"])[1])
    for verb in ("approve", "reject"):
        assert decide(api, verb, parked, reader).status_code == 403
    operator = bearer(tokens.create(store, "bob", ["operate", "read:human:ops"])[1])
    assert api.http.get(f"/dispatches/{parked}", headers=operator).json()["state"] == "parked"
    assert decide(api, "approve", parked, operator).status_code == 200


def test_what_earlier_stages_said_is_for_those_who_may_read_them(
    api: Api, store: Store, root: Headers, parked: str
) -> None:
    decide(api, "approve", parked, root, reason="a secret word")
    found = api.http.get("/dispatches", params={"agent": "archie"}, headers=root).json()
    stage = found["dispatches"][0]["dispatch_id"]
    url = f"/dispatches/{stage}?content=1"
    assert api.http.get(url, headers=root).json()["earlier"][0]["answer"] == "a secret word"
    archies = bearer(tokens.create(store, "archies", ["read:archie"])[1])
    assert api.http.get(url, headers=archies).json()["earlier"] == []
