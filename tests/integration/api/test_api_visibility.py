"""What a token does not see: what it may not read answers like what is not there."""

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

    async def say(size: int) -> ClientConnection:
        async with connect(url, additional_headers=root) as live:
            await live.send("x" * size)
            await live.send(b"x" * size)
            await asyncio.to_thread(sent, api, root, to="gem")
            with suppress(ConnectionClosed):
                await live.recv()
            return live

    assert asyncio.run(say(64 * 1024)).close_code == 1000
    assert asyncio.run(say(64 * 1024 + 1)).close_code == 1009
