"""Work again over HTTP: retry, resend, dead letters in bulk; and ids by their beginning."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from fleet.auth import tokens
from fleet.config.settings import parse
from fleet.ledger import Ending, Failure, FailureStage, ValkeyLedger
from fleet.store import Store, keys
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api, Json, release, take_lease

Headers = dict[str, str]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey, store: Store) -> Iterator[Api]:
    """An API with an administrator, so that it is closed."""
    tokens.create(store, "root", ["admin"])
    started = Api(tmp_path_factory.mktemp("api"), valkey.url)
    yield started
    started.close()


@pytest.fixture
def make(store: Store) -> Callable[..., Headers]:
    """The headers of a token with these scopes."""

    def headers(*scopes: str, **limits: Any) -> Headers:
        text = tokens.create(store, "test", scopes, **limits)[1]
        return {"Authorization": f"Bearer {text}"}

    return headers


@pytest.fixture
def root(make: Callable[..., Headers]) -> Headers:
    return make("admin")


def send(api: Api, headers: Headers, **event: Any) -> str:
    answer = api.http.post("/events", json={"text": "hello", **event}, headers=headers)
    return str(answer.json()["dispatches"][0]["dispatch_id"])


def post(api: Api, headers: Headers, path: str, **body: Any) -> httpx.Response:
    return api.http.post(path, json=body, headers=headers)


def end(store: Store, reason: str, *, retryable: bool) -> str:
    """Fail the next turn of gem."""
    agent = {"runner": "python", "python": "a:b"}
    ledger = ValkeyLedger(store, parse({"agents": {"gem": agent}}))
    token = take_lease(store, ttl_ms=5000)
    claim = ledger.claim(token)
    assert claim is not None
    failure = Failure(stage=FailureStage.LLM, reason=reason, retryable=retryable)
    ledger.commit(claim, Ending(failure=failure))
    release(store, token)
    return claim.dispatch_id


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("urn:fleet:problem:")


def test_a_retrying_one_is_tried_at_once(api: Api, root: Headers, store: Store) -> None:
    sent = send(api, root, to="gem", priority=9)
    assert end(store, "away", retryable=True) == sent
    record = api.http.get(f"/dispatches/{sent}", headers=root).json()
    assert record["state"] == "retrying"
    for _ in range(2):
        answer = post(api, root, f"/dispatches/{sent[:8]}/retry")
        assert (answer.status_code, answer.json()) == (
            200,
            {"dispatch_id": sent, "state": "queued"},
        )
    assert post(api, root, f"/dispatches/{sent}/cancel").json()["state"] == "cancelled"
    answer = post(api, root, f"/dispatches/{sent}/retry")
    assert problem(answer) == (409, "not-possible")
    assert "only a dead one, or a retrying one, can be tried again" in answer.json()["detail"]


def test_an_event_is_sent_again_with_changes(api: Api, root: Headers) -> None:
    old = send(api, root, to="gem", text="first words")
    answer = post(api, root, f"/dispatches/{old[:6]}/resend", text="other words", to="archie")
    assert answer.status_code == 202
    made = answer.json()
    assert made["resent_from"] == old
    assert [one["agent"] for one in made["dispatches"]] == ["archie"]
    new = made["dispatches"][0]["dispatch_id"]
    shown = api.http.get(f"/dispatches/{new}?content=1", headers=root).json()
    assert (shown["resent_from"], shown["event"]["data"]["text"]) == (old, "other words")
    assert api.http.get(f"/dispatches/{old}", headers=root).json()["resent_as"] == [new]
    again = api.http.post(f"/dispatches/{old}/resend", headers=root)
    assert again.json()["dispatches"][0]["agent"] == "gem"


def test_a_key_makes_it_repeatable(api: Api, root: Headers) -> None:
    old = send(api, root, to="gem")
    key = {"Idempotency-Key": f"again-{old}"}
    first, second = (
        api.http.post(f"/dispatches/{old}/resend", headers=root | key).json() for _ in range(2)
    )
    assert (first["duplicate"], second["duplicate"]) == (False, True)
    assert first["dispatches"] == second["dispatches"]


@pytest.mark.parametrize(
    "change",
    [{"text": "x" * 2**20}, {"to": "nobody"}, {"text": ""}, {"session": 7}, {"lane": "no"}],
)
def test_what_the_door_refuses_is_refused_in_its_sentence(
    api: Api, root: Headers, change: Json
) -> None:
    old = send(api, root, to="gem")
    refused = post(api, root, f"/dispatches/{old}/resend", **change)
    door = post(api, root, "/events", **{"text": "hello", "to": "gem", **change})
    assert refused.status_code >= 400
    assert refused.json() == door.json()


def test_scopes_and_limits_hold_as_at_the_door(api: Api, make: Any, root: Headers) -> None:
    old = send(api, root, to="gem", text="x" * 2000)
    reader, sender = make("read:gem"), make("read:gem", "send:gem")
    door = post(api, reader, "/events", to="gem", text="x")
    refused = post(api, reader, f"/dispatches/{old}/resend")
    assert (problem(refused), refused.json()) == ((403, "missing-scope"), door.json())
    assert problem(post(api, sender, f"/dispatches/{old}/resend", to="archie"))[0] == 403
    assert post(api, sender, f"/dispatches/{old}/resend").status_code == 202
    small = make("read:gem", "send:gem", body_bytes=1000)
    door = post(api, small, "/events", to="gem", text="x" * 2000)
    refused = post(api, small, f"/dispatches/{old}/resend")
    assert (problem(refused), refused.json()) == ((413, "too-large"), door.json())
    stranger = make("read:archie", "send:*")
    assert problem(post(api, stranger, f"/dispatches/{old}/resend"))[0] == 404
    for change in ({"source": "x"}, {"text": None}, {"id": 7}):
        refused = post(api, sender, f"/dispatches/{old}/resend", **change)
        assert problem(refused)[0] == 400


def test_an_ambiguous_beginning_names_what_the_caller_may_see(
    api: Api, make: Any, root: Headers, store: Store
) -> None:
    made = {}
    for agent in ("archie", "gem"):
        sent = send(api, root, to=agent)
        one = made[agent] = f"fedcba{sent[6:]}"
        store.client.copy(keys.dispatch(sent), keys.dispatch(one))
        store.client.hset(keys.dispatch(one), "id", one)
        store.client.zadd(keys.IDS, {one: 0})
    try:
        for method, path in (
            ("GET", "/dispatches/fedcba"),
            ("GET", "/dispatches/fedcba/stream"),
            ("POST", "/dispatches/fedcba/cancel"),
            ("POST", "/dispatches/fedcba/resend"),
        ):
            answer = api.http.request(method, path, headers=root)
            assert problem(answer) == (409, "ambiguous-id")
            assert all(one in answer.json()["detail"] for one in made.values())
        answer = api.http.get("/dispatches/fedcba", headers=make("read:gem"))
        assert answer.json()["dispatch_id"] == made["gem"]
        answer = api.http.get("/dispatches/fedcba", headers=make("read:small"))
        assert problem(answer) == (404, "not-found")
    finally:
        for one in made.values():
            store.client.delete(keys.dispatch(one))
            store.client.zrem(keys.IDS, one)


def test_an_event_is_found_by_its_beginning(api: Api, make: Any, root: Headers) -> None:
    send(api, root, to="gem", id="shipment-17", source="shop")
    found = api.http.get("/events/shipment", headers=root)
    assert (found.json()["event_id"], found.json()["source"]) == ("shipment-17", "shop")
    assert api.http.get("/events/shipment", headers=make("read:archie")).status_code == 404
    send(api, root, to="gem", id="shipment-18")
    answer = api.http.get("/events/shipment", headers=root)
    assert problem(answer) == (409, "ambiguous-id")
    assert "shipment-17 (shop), shipment-18 (fleet)" in answer.json()["detail"]


def test_dead_letters_are_replayed_by_filter(
    api: Api, make: Any, root: Headers, store: Store
) -> None:
    dead = []
    for reason in ("no such model", "no such model", "the key is refused"):
        sent = send(api, root, to="gem", priority=9)
        assert end(store, reason, retryable=False) == sent
        dead.append(sent)
    path = "/dead-letters/replay"
    assert problem(post(api, make("read:gem"), path)) == (403, "missing-scope")
    assert problem(post(api, make("operate"), path, agent="gem")) == (403, "missing-scope")
    blind = post(api, make("operate", "read:archie"), path)
    assert blind.json() == {"replayed": [], "refused": [], "more": False}
    first = post(api, root, path, agent="gem", since="1h", reason="MODEL", limit=1)
    assert first.json() == {"replayed": dead[:1], "refused": [], "more": True}
    second = post(api, make("operate", "read:gem"), path, reason="model")
    assert second.json() == {"replayed": dead[1:2], "refused": [], "more": False}
    assert post(api, root, path, since="2100-01-01").json()["replayed"] == []
    for body in ({"limit": 0}, {"limit": 1001}, {"since": "soon"}, {"agent": None}, {"all": True}):
        assert problem(post(api, root, path, **body)) == (400, "bad-parameter")
    assert api.http.post(path, headers=root).json()["replayed"] == dead[2:]
    for one in dead:
        assert post(api, root, f"/dispatches/{one}/cancel").status_code == 200
