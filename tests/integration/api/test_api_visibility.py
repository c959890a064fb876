"""The limits of a token: anything that it may not read answers like what is not there."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from fleet.auth import tokens
from fleet.store import Store
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api

Headers = dict[str, str]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey, store: Store) -> Iterator[Api]:
    """An API with an administrator, so that it is closed."""
    tokens.create(store, "root", ["admin"])
    started = Api(tmp_path_factory.mktemp("api"), valkey.url)
    yield started
    started.close()


@pytest.fixture
def make(store: Store) -> Any:
    """The headers of a token with these scopes."""
    return lambda *scopes: {"Authorization": f"Bearer {tokens.create(store, 'test', scopes)[1]}"}


@pytest.fixture
def root(make: Any) -> Headers:
    headers: Headers = make("admin")
    return headers


def sent(api: Api, headers: Headers, **event: Any) -> httpx.Response:
    return api.http.post("/events", json={"text": "hello", **event}, headers=headers)


def dispatch_of(api: Api, headers: Headers, to: str) -> str:
    return str(sent(api, headers, to=to).json()["dispatches"][0]["dispatch_id"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/health", "/metrics", "/dispatches", "/agents/gem")),
        *(("POST", path) for path in ("/events", "/mcp", "/tickets", "/dispatches/x/cancel")),
        *(("POST", path) for path in ("/agents/gem/pause", "/dispatches/stream/approve")),
    ],
)
def test_a_ticket_opens_streams_only(api: Api, root: Headers, method: str, path: str) -> None:
    ticket = {"ticket": api.http.post("/tickets", headers=root).json()["ticket"]}
    answer = api.http.request(method, path, params=ticket, json={"text": "x"})
    assert (answer.status_code, answer.json()["detail"][:15]) == (401, "A ticket opens ")
    dispatch_id = dispatch_of(api, root, "gem")
    with api.http.stream("GET", f"/dispatches/{dispatch_id}/stream", params=ticket) as live:
        assert live.status_code == 200


def test_a_websocket_client_may_say_little(api: Api, root: Headers) -> None:
    url = api.url.replace("http://", "ws://") + "/ws"

    async def say(*messages: str | bytes) -> ClientConnection:
        async with connect(url, additional_headers=root) as live:
            for message in messages:
                await live.send(message)
            await asyncio.to_thread(sent, api, root, to="gem")
            with suppress(ConnectionClosed):
                await live.recv()
            return live

    most = "x" * 64 * 1024
    assert asyncio.run(say(most, most.encode())).close_code == 1000
    # One alone: what follows it would meet a closed socket, whose reset hides the code.
    assert asyncio.run(say(most + "x")).close_code == 1009
    assert asyncio.run(say(most.encode() + b"x")).close_code == 1009


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.text


@pytest.mark.parametrize("scope", ["read:archie", "send:gem", "operate"])
def test_a_dispatch_that_one_may_not_read_is_not_there(
    api: Api, make: Any, root: Headers, scope: str
) -> None:
    there, nowhere = dispatch_of(api, root, "gem"), "00000000-0000-5000-8000-000000000000"
    headers = make(scope, "operate")
    for path in ("", "/stream"):
        found = api.http.get(f"/dispatches/{there}{path}", headers=headers)
        assert told(found) == told(api.http.get(f"/dispatches/{nowhere}{path}", headers=headers))
        assert found.status_code == 404
    for verb in ("cancel", "retry", "approve", "reject"):
        body = {"reason": "no"}
        one, other = (
            api.http.post(f"/dispatches/{id_}/{verb}", json=body, headers=headers)
            for id_ in (there, nowhere)
        )
        assert told(one) == told(other)
        assert one.status_code == 404
    record = api.http.get(f"/dispatches/{there}", headers=root).json()
    assert record["state"] == "queued"


def test_an_operator_cancels_what_it_reads_and_what_it_sent(api: Api, make: Any) -> None:
    sender = make("send:gem", "operate")
    own = dispatch_of(api, sender, "gem")
    assert api.http.get(f"/dispatches/{own}", headers=sender).status_code == 404
    assert api.http.post(f"/dispatches/{own}/cancel", headers=sender).status_code == 200
    other, reader = dispatch_of(api, sender, "gem"), make("read:gem", "operate")
    assert api.http.post(f"/dispatches/{other}/cancel", headers=reader).status_code == 200


def test_an_event_that_one_may_not_read_is_not_there(api: Api, make: Any) -> None:
    headers = make("read:archie")
    for sender in (make("send:*"), make("send:*")):
        assert sent(api, sender, to="gem", id="secret").status_code == 202
    unknown = told(api.http.get("/events/unknown", headers=headers))
    assert told(api.http.get("/events/secret", headers=headers)) == unknown
    assert unknown[0] == 404
    assert sent(api, make("send:*"), to="archie", id="secret").status_code == 202
    found = api.http.get("/events/secret", headers=headers).json()
    assert [one["agent"] for one in found["members"]] == ["archie"]


@pytest.mark.parametrize("path", ["/agents", "/dispatches", "/bus"])
def test_a_filter_tells_nobody_which_agents_there_are(api: Api, make: Any, path: str) -> None:
    headers = make("read:archie")
    one, other = (
        api.http.get(path, params={"agent": name}, headers=headers) for name in ("gem", "mag")
    )
    assert told(one) == (403, other.text.replace("mag", "gem"))
    gone = api.http.get(path, params={"agent": "gone"}, headers=make("read:archie", "read:gone"))
    assert (gone.status_code, gone.json()["detail"]) == (400, "`agent` must be one of archie.")


def test_an_agent_that_one_may_not_read_is_switched_by_others(
    api: Api, make: Any, root: Headers
) -> None:
    headers = make("read:archie", "operate")
    for verb in ("pause", "resume", "drain"):
        one, other = (
            api.http.post(f"/agents/{name}/{verb}", headers=headers) for name in ("gem", "mag")
        )
        assert told(one) == (403, other.text.replace("mag", "gem"))
        assert api.http.post(f"/agents/all/{verb}", headers=headers).status_code == 403
    assert not api.http.get("/agents/gem", headers=root).json()["paused"]


def test_who_may_not_send_to_all_of_a_target_is_not_told_who_they_are(api: Api, make: Any) -> None:
    headers = make("send:archie")
    for target in ({"to": "@reviewers"}, {"to": "all"}, {"to": ["archie", "@reviewers"]}):
        answer = sent(api, headers, **target)
        assert answer.status_code == 403
        assert "gem" not in answer.text
        assert "name in `to`" in answer.json()["detail"]
    answer = sent(api, make("send:gem"))
    assert (answer.status_code, "archie" in answer.text) == (403, False)


def test_a_target_that_one_may_not_use_is_told_from_none_by_nobody(api: Api, make: Any) -> None:
    headers = make("send:archie")
    for known, unknown in (("gem", "mag"), ("@reviewers", "@nobodies"), ("@gem", "@mag")):
        one, other = (sent(api, headers, to=["archie", name]) for name in (known, unknown))
        assert told(one) == (403, other.text.replace("mag", "gem"))
    assert sent(api, make("send:*"), to="mag").status_code == 404


def test_health_and_metrics_show_what_one_may_read(api: Api, make: Any, root: Headers) -> None:
    dispatch_of(api, root, "archie")
    dispatch_of(api, root, "gem")
    with api.http.stream("GET", "/bus", headers=root):
        whole = api.http.get("/health", headers=root).json()
        part = api.http.get("/health", headers=make("read:gem")).json()
        none = api.http.get("/health", headers=make("send:gem")).json()
    assert whole["g1"]["redis_url"]
    assert whole["saturation"]["queued"] > part["saturation"]["queued"] > 0
    for document, agents in ((part, ["gem"]), (none, [])):
        assert document.keys() == whole.keys()
        assert "archie" not in str(document)
        assert document["g2"]["semaphores"] == [*document["g2"]["agents"]] == agents
        assert document["saturation"]["capacity"] == len(agents)
        assert document["g1"]["redis_url"] is None
        assert document["g4"]["providers"] == {}
        assert document["links"] == {"flower": None}
        assert document["bus"]["slowest"] == []
    assert none["saturation"]["queued"] == 0
    text = api.http.get("/metrics", headers=make("read:gem")).text
    assert 'fleet_dispatches{agent="gem"' in text
    assert "archie" not in text
    for name in ("fleet_accepted", "fleet_provider_breaker_open", "fleet_bus_clients"):
        assert name not in text
        assert name in api.http.get("/metrics", headers=root).text
