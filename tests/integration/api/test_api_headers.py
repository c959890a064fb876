"""The headers of every response: no browser guesses, nobody keeps it, no version is told."""

import asyncio
import re
from http import HTTPStatus

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fleet.version import VERSION
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api, MakeApi, away

#: A number of a version, or a name of a server or a library.
TELLS = re.compile(r"\d+\.\d+|uvicorn|starlette|python|websockets", re.IGNORECASE)
#: What may hold such words for a reason of its own.
NAMED = frozenset({"content-type", "content-length", "content-security-policy", "date", "etag"})


def check(headers: httpx.Headers) -> None:
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert "server" not in headers
    for name, value in headers.items():
        assert name in NAMED or not TELLS.search(f"{name}: {value}"), (name, value)


@pytest.fixture(scope="module")
def answers(api: Api) -> dict[str, httpx.Response]:
    """Responses of every kind."""
    http = api.http
    dispatch = api.send().json()["dispatches"][0]["dispatch_id"]
    json = {"content-type": "application/json"}
    found = {
        "accepted": api.send(),
        "batch": http.post("/events", json=[{"text": "x"}]),
        "malformed": http.post("/events", content="{", headers=json),
        "too large": http.post("/events", content="x" * 2_000_000, headers=json),
        "media type": http.post("/events", content="x", headers={"content-type": "text/html"}),
        "nothing there": http.get("/nothing"),
        "no method": http.put("/events"),
        "content": http.get(f"/dispatches/{dispatch}", params={"content": "1"}),
        "cancelled": http.post(f"/dispatches/{dispatch}/cancel"),
        "ended stream": http.get(f"/dispatches/{dispatch}/stream"),
        "head": http.head("/bus"),
        "foreign": http.get("/health", headers={"host": "fleet.example"}),
        "mcp": http.post(
            "/mcp", content='{"jsonrpc": "2.0", "id": 1, "method": "ping"}', headers=json
        ),
        "no mcp": http.post("/mcp", content="{", headers=json),
        **{
            path: http.get(path) for path in ("/livez", "/readyz", "/health", "/metrics", "/agents")
        },
        **{path: http.get(path) for path in ("/dispatches", "/openapi.json")},
        "/tickets": http.post("/tickets"),
    }
    with http.stream("GET", "/bus") as stream:
        found["stream"] = stream
    return found


def test_every_response_is_what_it_says_and_is_not_kept(answers: dict[str, httpx.Response]) -> None:
    assert len({answer.status_code for answer in answers.values()}) > 7
    for name, answer in answers.items():
        check(answer.headers)
        assert answer.headers.get_list("cache-control") == ["no-store"], name


def test_the_page_is_asked_for_again_each_time(api: Api) -> None:
    for path in ("/", "/console/main.js", "/docs", "/docs/start.js"):
        answer = api.http.get(path)
        check(answer.headers)
        assert answer.headers.get_list("cache-control") == ["no-cache"]
        again = api.http.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == HTTPStatus.NOT_MODIFIED
        check(again.headers)
        assert VERSION not in str(answer.headers)


def test_a_websocket_tells_nothing_either(api: Api) -> None:
    async def both() -> list[httpx.Headers]:
        url = api.url.replace("http://", "ws://") + "/ws"
        async with connect(url) as live:
            assert live.response
            accepted = live.response.headers
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{url}?agent=nobody")
        refused = caught.value.response.headers
        return [httpx.Headers(list(one.raw_items())) for one in (accepted, refused)]

    for headers in asyncio.run(both()):
        check(headers)
        assert headers["cache-control"] == "no-store"


def test_so_does_a_refusal_while_the_broker_is_away(make_api: MakeApi, valkey: Valkey) -> None:
    api = make_api(valkey.url)
    with away(valkey):
        answer = api.http.get("/dispatches")
        assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        check(answer.headers)
        assert answer.headers["cache-control"] == "no-store"
