"""The fleet's own tools over the Model Context Protocol, with the official client."""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from mcp.client.client import Client

from fleet.auth import tokens
from fleet.tools.fleet_tools import CLASSES
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.mcp_client import answer, call, error, with_client
from tests.fixtures.processes import wait_until

_SERVE = """
from fleet.api.server import serve
serve(announce=lambda url: print(url + ".", flush=True))
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet in which only archie works."""
    agents: dict[str, dict[str, Any]] = {"archie": {}, "gem": {}, "shy": {"on_busy": "reject"}}
    with fleet_of(tmp_path_factory.mktemp("fleet"), agents, durable=True) as fleet:
        tokens.create(fleet.books.store, "root", ["admin"])
        fleet.ready("archie")
        yield fleet


@pytest.fixture(scope="module")
def url(fleet: Fleet) -> str:
    api = fleet.start(
        "api",
        sys.executable,
        "-c",
        _SERVE,
        FLEET_API__PORT="0",
        FLEET_BREAKER__RESET_TIMEOUT_S="0.5",
    )
    api.wait_said(".\n")
    return api.said().split()[-1].rstrip(".")


@pytest.fixture
def make(fleet: Fleet) -> Any:
    """A token with these scopes: its text."""
    return lambda *scopes, name="test": tokens.create(fleet.books.store, name, scopes)[1]


PING = '{"jsonrpc": "2.0", "id": 7, "method": "ping"}'


def post(url: str, content: str, **headers: str) -> httpx.Response:
    sent = {"content-type": "application/json", **headers}
    return httpx.post(f"{url}/mcp", content=content, headers=sent, trust_env=False)


def only(sent: Any) -> str:
    (dispatch,) = sent.value["dispatches"]
    return str(dispatch["dispatch_id"])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_gives_work_and_reads_the_answer(url: str, make: Any, mode: str) -> None:
    async def work(client: Client) -> Any:
        listed = await client.list_tools()
        assert {tool.name for tool in listed.tools} == CLASSES.keys()
        assert all(tool.description for tool in listed.tools)
        given = {"to": "archie", "text": "say hello", "id": f"once-{mode}"}
        sent = await answer(client, "queue_dispatch", **given)
        again = await answer(client, "queue_dispatch", **given)
        assert (sent.value["duplicate"], again.value["duplicate"]) == (False, True)
        while True:
            status = await answer(client, "queue_status", dispatch_id=only(sent))
            if status.value["state"] == "completed":
                break
            await asyncio.sleep(0.02)
        assert only(again) == only(sent)
        newest = (await answer(client, "queue_list", agent="archie", limit=1)).value
        assert [one["dispatch_id"] for one in newest] == [only(sent)]
        activity = (await answer(client, "queue_activity")).value
        assert (activity["archie"]["online"], activity["gem"]["online"]) == (True, False)
        return status.value["answer"]

    assert with_client(work, url, make("admin"), mode=mode) == "you said hello"


def test_what_each_scope_allows(url: str, make: Any) -> None:
    mine, other = make("send:archie", "send:gem", "read:archie", name="ci"), make("admin")
    operator, mute = make("operate", "read:gem"), make("read:gem")
    foreign = only(call(url, "queue_dispatch", other, to="gem", text="say it"))
    call(url, "queue_dispatch", mine, to="archie", text="say it")
    assert call(url, "queue_dispatch", mine, to="@nobody", text="x").refused
    refused = call(url, "queue_dispatch", mine, to="shy", text="x")
    assert (refused.refused, refused.text) == (
        True,
        "Your token does not have the scope send:shy; use one that has it.",
    )
    foreign_status = call(url, "queue_status", mine, dispatch_id=foreign).text
    assert "There is no dispatch" in foreign_status
    assert call(url, "queue_list", mine, agent="gem").refused
    assert {one["agent"] for one in call(url, "queue_list", mine).value} == {"archie"}
    assert call(url, "queue_activity", mine).value.keys() == {"archie"}
    for verb in ("queue_status", "queue_cancel"):
        unknown = call(url, verb, mine, dispatch_id="0" * len(foreign)).text
        told = call(url, verb, mine, dispatch_id=foreign).text
        assert told == unknown.replace("0" * len(foreign), foreign)
        assert call(url, verb, make("operate"), dispatch_id=foreign).text == told
    assert "not dispatched by you" in call(url, "queue_cancel", mute, dispatch_id=foreign).text
    assert call(url, "queue_cancel", operator, dispatch_id=foreign).value["state"] == "cancelled"
    own = only(call(url, "queue_dispatch", mine, to="gem", text="say it"))
    assert "the scope read:gem;" in call(url, "queue_status", mine, dispatch_id=own).text
    seen = call(url, "queue_status", mute, dispatch_id=own[:8]).value
    assert seen["state"] == "queued"
    assert call(url, "queue_cancel", mine, dispatch_id=own, reason="no need").value == {
        "dispatch_id": own,
        "state": "cancelled",
    }
    assert call(url, "queue_status", mute, dispatch_id=own).value["error"] == "ci: no need"
    assert "There is no dispatch" in call(url, "queue_status", mute, dispatch_id="x\ny").text


def test_who_has_no_good_token_gets_nowhere(url: str, make: Any) -> None:
    with pytest.raises(ExceptionGroup, match="unhandled"):
        call(url, "queue_activity", make("admin")[:-1])
    refused = post(url, PING)
    assert (refused.status_code, refused.json()["status"]) == (401, 401)
    pong = post(url, PING, authorization=f"Bearer {make('read:gem')}")
    assert pong.json() == {"jsonrpc": "2.0", "id": 7, "result": {}}


def test_what_is_no_message_is_refused(url: str, make: Any) -> None:
    me = {"authorization": f"Bearer {make('read:archie')}"}

    def code(content: str) -> tuple[int, int]:
        refused = post(url, content, **me)
        return refused.status_code, refused.json()["error"]["code"]

    assert code("{nonsense") == (400, -32700)
    assert code("[" * 100_000) == (400, -32700)
    assert code(PING.replace("ping", "\\ud800")) == (400, -32700)
    assert code(f"[{PING}]") == (400, -32600)
    assert code(PING.replace("2.0", "1.0"))[0] == 400
    assert code(PING.replace("ping", "no/such")) == (200, -32601)
    assert post(url, '"' + "x" * 2_000_000 + '"', **me).status_code == 413
    assert post(url, PING, **me, **{"content-type": "text/plain"}).status_code == 415
    assert post(url, PING, **me, origin="https://elsewhere.example").status_code == 403
    for method in ("GET", "DELETE"):
        refused = httpx.request(method, f"{url}/mcp", headers=me, trust_env=False)
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


def test_a_client_that_is_not_exact_is_understood(url: str, make: Any) -> None:
    me = {"content-type": "application/json", "authorization": f"Bearer {make('read:archie')}"}
    pong = {"jsonrpc": "2.0", "id": 7, "result": {}}
    listing = PING.replace("ping", "tools/list")
    with httpx.Client(base_url=url, headers=me, trust_env=False) as http:
        assert http.post("/mcp/", content=PING).json() == pong
        assert http.post("/mcp", content=b"\xef\xbb\xbf" + PING.encode()).json() == pong
        del http.headers["accept"]  # httpx sends one by itself
        for path in ("/mcp", "/mcp/"):
            assert "accept" not in http.build_request("POST", path).headers
            assert http.post(path, content=PING).json() == pong
            assert http.post(path, content=listing).json()["result"]["tools"]
        assert (
            http.post("/mcp", content=PING, headers={"accept": "application/json"}).json() == pong
        )
        refused = http.post("/mcp", content=PING, headers={"accept": "text/html"})
        assert (refused.status_code, "`Accept` must allow" in refused.json()["detail"]) == (
            406,
            True,
        )
        assert http.get("/mcp/").status_code == 405


def test_what_a_tool_cannot_do_is_said(url: str, make: Any) -> None:
    async def work(client: Client) -> None:
        unknown = await error(client, "queue_destroy")
        assert (unknown.code, "queue_destroy" in unknown.message) == (-32602, True)
        wrong = await answer(client, "queue_dispatch", to=["archie"], text="x")
        assert "the arguments are wrong" in wrong.text
        empty = await answer(client, "queue_dispatch", to="archie", text=" ")
        assert (empty.refused, empty.text) == (True, "`text` is empty.")
        nobody = await answer(client, "queue_list", agent="nobody")
        assert "There is no agent 'nobody'" in nobody.text
        shy = {"to": "shy", "text": "say it", "session": "s"}
        await answer(client, "queue_dispatch", **shy)
        busy = await error(client, "queue_dispatch", **shy)
        assert (busy.code, busy.data["retry_after_s"] > 0) == (-32002, True)

    with_client(work, url, make("admin"))


def test_a_loop_of_agents_ends(url: str, make: Any) -> None:
    async def send(client: Client) -> Any:
        return await answer(client, "queue_dispatch", to="gem", text="say it")

    token = make("admin")
    allowed = with_client(send, url, token, fleet_hops="7")
    refused = with_client(send, url, token, fleet_hops="8")
    assert (allowed.refused, refused.refused) == (False, True)
    assert "routes.max_hops allows 8" in refused.text
    assert "`hops`" in with_client(send, url, token, fleet_hops="many").text


def test_two_hundred_calls_at_once(url: str, make: Any) -> None:
    async def work(client: Client) -> list[Any]:
        sending = [answer(client, "queue_dispatch", to="gem", text="say it") for _ in range(100)]
        looking = [answer(client, "queue_activity") for _ in range(100)]
        return list(await asyncio.gather(*sending, *looking))

    found = with_client(work, url, make("admin"))
    sent = found[:100]
    assert sum(not one.refused for one in sent) == 10
    assert all("limit of 10 dispatches a minute" in one.text for one in sent if one.refused)
    assert all(one.value["archie"]["online"] for one in found[100:])
    # Another token has a minute of its own.
    assert not call(url, "queue_dispatch", make("admin"), to="gem", text="say it").refused


def test_without_the_broker_work_is_kept_and_the_rest_says_so(
    url: str, fleet: Fleet, make: Any
) -> None:
    async def work(client: Client) -> str:
        await answer(client, "queue_activity")
        fleet.server.kill()
        try:
            sent = await answer(client, "queue_dispatch", to="gem", text="say it", id="kept")
            away = await error(client, "queue_status", dispatch_id=only(sent))
            assert (away.code, away.data["retry_after_s"] > 0) == (-32603, True)
        finally:
            fleet.server.start()
        return only(sent)

    kept = with_client(work, url, make("admin"))
    wait_until(lambda: fleet.books.state(kept) == "queued", 60)
