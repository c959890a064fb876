"""Tokens over HTTP: who gets in, what each scope opens, and what a revoked one still sees."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fleet.auth import tokens
from fleet.ledger.bus import last_id
from fleet.store import Store, open_store
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api, Follow, Json, MakeApi, away


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey, store: Store) -> Iterator[Api]:
    """An API with an administrator, so that it is closed."""
    tokens.create(store, "root", ["admin"])
    started = Api(tmp_path_factory.mktemp("api"), valkey.url)
    yield started
    started.close()


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def make(store: Store) -> Any:
    """A token with these scopes: its text."""
    return lambda *scopes, **limits: tokens.create(store, "test", scopes, **limits)[1]


@pytest.fixture
def root(make: Any) -> dict[str, str]:
    return bearer(make("admin"))


def sent(api: Api, headers: dict[str, str], **event: Any) -> httpx.Response:
    return api.http.post("/events", json={"text": "hello", **event}, headers=headers)


@pytest.mark.parametrize("path", ["/dispatches", "/bus", "/health", "/metrics", "/nothing-here"])
def test_a_closed_api_wants_a_token(api: Api, make: Any, path: str) -> None:
    stranger = "fleet_0123456789ab_" + "x" * 43
    halved = make("admin")[:-1]
    for headers in ({}, *map(bearer, (stranger, halved, "x")), {"Authorization": "x"}):
        answer = api.http.get(path, headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["detail"].startswith("A valid token is needed")


def test_probes_and_the_first_page_need_none(api: Api) -> None:
    for path in ("/", "/docs", "/docs/start.js", "/livez", "/readyz", "/openapi.json"):
        assert api.http.get(path).status_code == 200
        assert api.http.get(path, headers={"Host": "fleet.example"}).status_code == 200


def test_a_token_in_a_url_is_refused(api: Api, make: Any) -> None:
    answer = api.http.get("/dispatches", params={"token": make("admin")})
    assert answer.status_code == 400
    assert "must not be in a URL" in answer.json()["detail"]


def test_who_may_send_to_whom(api: Api, make: Any) -> None:
    one, all_ = bearer(make("send:archie")), bearer(make("send:*"))
    assert sent(api, one, to="archie").status_code == 202
    answer = sent(api, one, to="gem")
    assert (answer.status_code, answer.json()["detail"]) == (
        403,
        "Your token does not have the scope send:gem; use one that has it.",
    )
    assert sent(api, one, to="@reviewers").status_code == 403
    assert sent(api, one, to="nobody").status_code == 403, "nobody learns what there is"
    assert sent(api, all_, to="nobody").status_code == 404
    assert sent(api, all_, to="@reviewers").status_code == 202
    assert sent(api, bearer(make("read:*", "operate")), to="archie").status_code == 403
    batch = [{"to": "archie", "text": "a"}, {"to": "gem", "text": "b"}]
    answers = api.http.post("/events", json=batch, headers=one).json()
    assert answers[0]["dispatches"][0]["agent"] == "archie"
    assert answers[1]["error"]["status"] == 403


def test_who_sees_and_operates_which_dispatches(api: Api, make: Any, root: Any) -> None:
    mine, other = (
        sent(api, root, to=to).json()["dispatches"][0]["dispatch_id"] for to in ("archie", "gem")
    )
    reader, operator = bearer(make("read:archie")), bearer(make("operate", "read:gem"))
    assert api.http.get(f"/dispatches/{mine}", headers=reader).status_code == 200
    assert api.http.get(f"/dispatches/{other}", headers=reader).status_code == 404
    listed = api.http.get("/dispatches", params={"limit": 1000}, headers=reader).json()
    assert {row["agent"] for row in listed["dispatches"]} == {"archie"}
    both = sent(api, root, to="@reviewers").json()["event_id"]
    for caller, status in ((reader, 404), (bearer(make("read:gem", "read:archie")), 200)):
        assert api.http.get(f"/events/{both}", headers=caller).status_code == status
    refused = api.http.get("/dispatches", params={"agent": "gem"}, headers=reader)
    assert refused.status_code == 403
    for verb in ("cancel", "retry", "approve", "reject"):
        assert api.http.post(f"/dispatches/{mine}/{verb}", headers=reader).status_code == 403
    assert api.http.post(f"/dispatches/{other}/cancel", headers=operator).status_code == 200
    assert api.http.get(f"/dispatches/{mine}", headers=operator).status_code == 404


def test_who_sees_and_switches_which_agents(api: Api, make: Any, root: Any) -> None:
    reader, operator = bearer(make("read:archie")), bearer(make("operate", "read:archie"))
    seen = api.http.get("/agents", headers=reader).json()["agents"]
    assert [row["agent"] for row in seen] == ["archie"]
    assert api.http.get("/agents/gem", headers=reader).status_code == 403
    assert api.http.get("/agents", params={"agent": "gem"}, headers=reader).status_code == 403
    assert api.http.post("/agents/archie/pause", headers=reader).status_code == 403
    for verb in ("pause", "resume"):
        assert api.http.post(f"/agents/archie/{verb}", headers=operator).status_code == 200


def test_what_nobody_thought_of_is_for_admins(api: Api, make: Any, root: Any) -> None:
    almost = bearer(make("send:*", "read:*", "operate"))
    assert api.http.get("/nothing-here", headers=almost).status_code == 403
    assert api.http.get("/nothing-here", headers=root).status_code == 404


@pytest.mark.parametrize("replay", [False, True])
def test_a_reader_of_one_agent_sees_only_that_live_and_replayed(
    api: Api, store: Store, make: Any, root: Any, replay: bool
) -> None:
    start = last_id(store)
    reader = bearer(make("read:gem"))
    targets = ["archie", "gem", "archie", "gem"]

    def send() -> None:
        for to in targets:
            assert sent(api, root, to=to).status_code == 202

    if replay:
        send()
    headers = {**reader, "Last-Event-ID": start} if replay else reader
    with api.http.stream("GET", "/bus", headers=headers) as answer:
        bus = Follow(answer)
        if not replay:
            send()
        assert [event["agent"] for event in bus.take(2)] == ["gem", "gem"]
        assert sent(api, root, to="@reviewers").status_code == 202
        assert bus.next()["agent"] == "gem"
    assert api.http.get("/bus", params={"agent": "archie"}, headers=reader).status_code == 403
    assert api.http.get("/bus", headers=bearer(make("send:gem"))).status_code == 403


def ws(api: Api, query: str = "", **headers: str) -> connect:
    url = api.url.replace("http://", "ws://") + "/ws" + query
    return connect(url, additional_headers=headers)


async def texts(live: ClientConnection, count: int) -> list[Json]:
    async with asyncio.timeout(20):
        return [json.loads(await live.recv()) for _ in range(count)]


def test_a_websocket_asks_alike(api: Api, make: Any) -> None:
    async def status(query: str, **headers: str) -> int:
        with pytest.raises(InvalidStatus) as caught:
            await ws(api, query, **headers)
        return caught.value.response.status_code

    async def refused() -> None:
        assert await status("") == 401
        assert await status("?ticket=guessed") == 401
        assert await status("", **bearer(make("operate"))) == 403
        assert await status("?agent=gem", **bearer(make("read:archie"))) == 403
        assert await status("?token=" + make("admin")) == 400
        assert await status("", Origin="https://elsewhere.example", **bearer(make("admin"))) == 403

    asyncio.run(refused())


def test_a_ticket_opens_once(api: Api, make: Any, root: Any) -> None:
    answer = api.http.post("/tickets", headers=bearer(make("read:gem")))
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    ticket = answer.json()["ticket"]

    async def follow() -> None:
        async with ws(api, f"?ticket={ticket}") as live:
            await asyncio.to_thread(sent, api, root, to="@reviewers")
            assert (await texts(live, 1))[0]["agent"] == "gem"
        with pytest.raises(InvalidStatus) as caught:
            await ws(api, f"?ticket={ticket}")
        assert caught.value.response.status_code == 401

    asyncio.run(follow())
    assert api.http.post("/tickets").status_code == 401


def test_a_ticket_dies_with_its_token(api: Api, store: Store) -> None:
    token, text = tokens.create(store, "brief", ["read:*"])
    ticket = api.http.post("/tickets", headers=bearer(text)).json()["ticket"]
    tokens.revoke(store, token.id)
    assert api.http.get("/bus", params={"ticket": ticket}).status_code == 401


def test_a_revoked_token_is_refused_by_the_next_request(api: Api, store: Store) -> None:
    for _ in range(20):
        token, text = tokens.create(store, "brief", ["read:*"])
        assert api.http.get("/dispatches", headers=bearer(text)).status_code == 200
        tokens.revoke(store, token.id)
        assert api.http.get("/dispatches", headers=bearer(text)).status_code == 401


def test_a_revocation_comes_before_the_next_event(api: Api, store: Store, root: Any) -> None:
    """Under load: what was added to the bus after the revocation is never seen."""
    token, text = tokens.create(store, "brief", ["read:*"])
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            assert sent(api, root, to="gem").status_code == 202

    sender = threading.Thread(target=load)

    async def follow() -> tuple[list[Json], str, int | None]:
        async with ws(api, **bearer(text)) as live:
            sender.start()
            seen = await texts(live, 50)
            await asyncio.to_thread(tokens.revoke, store, token.id)
            revoked_at = await asyncio.to_thread(last_id, store)
            try:
                while True:
                    seen += await texts(live, 1)
            except ConnectionClosed:
                return seen, revoked_at, live.close_code

    try:
        seen, revoked_at, code = asyncio.run(follow())
    finally:
        stop.set()
        sender.join()
    assert code == 1008
    assert place(seen[-1]["id"]) <= place(revoked_at)


def place(entry_id: str) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split("-")))


def test_a_revoked_reader_that_reads_nothing_gets_nothing_more(
    api: Api, store: Store, root: Any
) -> None:
    token, text = tokens.create(store, "brief", ["read:*"])
    with api.http.stream("GET", "/bus", headers=bearer(text)) as answer:
        tokens.revoke(store, token.id)
        revoked_at = last_id(store)
        assert sent(api, root, to="gem").status_code == 202
        told = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    # The reader may still have been at what happened before.
    assert all(place(event["id"]) <= place(revoked_at) for event in told)


def test_a_token_has_a_rate(api: Api, make: Any, root: Any) -> None:
    slow = bearer(make("send:*", rate_per_s=0.5))
    assert sent(api, slow, to="gem").status_code == 202
    answer = sent(api, slow, to="gem")
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 2
    assert sent(api, root, to="gem").status_code == 202
    batch = [{"to": "gem", "text": "x"}] * 5  # a batch counts as its events
    other = bearer(make("send:*", rate_per_s=1))
    assert api.http.post("/events", json=batch, headers=other).status_code == 202
    assert sent(api, other, to="gem").status_code == 429


def test_a_token_has_a_size(api: Api, make: Any) -> None:
    small = bearer(make("send:*", body_bytes=100))
    assert sent(api, small, to="gem").status_code == 202
    answer = sent(api, small, to="gem", session="x" * 100)
    assert (answer.status_code, "100 bytes" in answer.json()["detail"]) == (413, True)


def test_an_open_api_closes_with_the_first_token(make_api: MakeApi, tmp_path: Path) -> None:
    fresh = Valkey(tmp_path).start()
    try:
        api = make_api(fresh.url)
        assert api.send().status_code == 202
        assert api.http.get("/dispatches", headers=bearer("x")).status_code == 401
        ticket = api.http.post("/tickets").json()["ticket"]
        with api.follow(None, ticket=ticket) as bus, open_store(fresh.url).client as client:
            opened = open_store(fresh.url)
            token, text = tokens.create(opened, "first", ["admin"])
            with pytest.raises(EOFError):
                bus.next()
            wait_until(lambda: api.send().status_code == 401)
            assert api.http.get("/health", headers=bearer(text)).status_code == 200
            tokens.revoke(opened, token.id)
            assert api.send().status_code == 401
            client.flushall()  # what was closed is not opened by losing its data
            assert api.http.get("/dispatches", headers=bearer(text)).status_code == 401
            assert api.send().status_code == 401
            opened.close()
    finally:
        fresh.kill()


def test_a_token_holds_while_the_broker_is_away(
    make_api: MakeApi, valkey: Valkey, make: Any, api: Api
) -> None:
    headers = bearer(make("read:*"))
    assert api.http.get("/health", headers=headers).status_code == 200
    with away(valkey):
        assert api.http.get("/health", headers=headers).json()["status"] == "down"
        assert api.http.get("/health").status_code == 401
        late = make_api(valkey.url)  # does not know whether there are tokens
        assert late.http.get("/dispatches", headers=headers).status_code == 503
        with late.follow() as bus:
            assert bus.next()["reason"] == "bus_unavailable"
            valkey.start()
            with pytest.raises(EOFError):  # and now it does
                bus.until(lambda event: event["type"] != "resync_required")
        valkey.kill()


def test_another_address_is_served_where_there_is_a_token(
    make_api: MakeApi, valkey: Valkey, make: Any
) -> None:
    text = make("admin")
    api = make_api(valkey.url, FLEET_API__HOST="0.0.0.0")
    url = api.url.replace("0.0.0.0", "127.0.0.1")
    for headers, status in (({}, 401), (bearer(text), 200)):
        answer = httpx.get(f"{url}/dispatches", headers=headers, trust_env=False)
        assert answer.status_code == status


def fleet(valkey: Valkey, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    config = folder / "fleet.toml"
    config.write_text(
        f'fleet.broker_url = "{valkey.url}"\nfleet.data_dir = "{folder}"\n'
        '[agents.archie]\nrunner = "python"\npython = "a:b"\n'
    )
    return subprocess.run(
        [sys.executable, "-m", "fleet", "token", *args, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_tokens_from_the_command_line(
    api: Api, valkey: Valkey, store: Store, tmp_path: Path
) -> None:
    made = fleet(valkey, tmp_path, "create", "ci", "--scope", "send:archie", "--scope", "read:*")
    text = made.stdout.strip()
    assert sent(api, bearer(text), to="archie").status_code == 202
    secret = text.split("_", 2)[2]
    assert secret not in made.stderr
    kept = {key: store.client.hgetall(key) for key in store.client.keys("fleet:tokens")}
    assert secret not in str(kept)
    listed = json.loads(fleet(valkey, tmp_path, "list", "--json").stdout)
    mine = next(one for one in listed if one["name"] == "ci")
    assert (mine["scopes"], mine["revoked_ms"]) == (["send:archie", "read:*"], None)
    assert "digest" not in mine
    assert fleet(valkey, tmp_path, "revoke", "ci").stdout == f"{mine['id']} (ci) is revoked\n"
    assert sent(api, bearer(text), to="archie").status_code == 401
    wrong = fleet(valkey, tmp_path, "create", "x", "--scope", "send:nobody")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "archie" in wrong.stderr
    unknown = fleet(valkey, tmp_path, "revoke", "nobody")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
