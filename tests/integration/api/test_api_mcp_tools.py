"""Tool servers behind `/mcp`: a real one, under the locks of a real store."""

import asyncio
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.client.client import Client

from fleet.auth import tokens
from fleet.locks import SessionLock
from fleet.store import Store
from tests.fakes import tool_server
from tests.fixtures import locks
from tests.fixtures.mcp_client import answer, call, error, with_client
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api, MakeApi, away

BUSY, STORE_AWAY = -32002, -32603


SERVER = Path(tool_server.__file__)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Two servers that write in `folder`, offered to clients; to the one, everything is reading."""
    server = {"command": [sys.executable, str(SERVER)], "cwd": str(folder)}
    sets = {"notes": server, "reads": {**server, "classes": {"write_gate": "read"}}}
    return {
        "FLEET_TOOLS": json.dumps(sets),
        "FLEET_MCP__TOOLS": '["notes", "reads"]',
        "FLEET_LOCKS__ACQUIRE_TIMEOUT_S": "0.3",
        **more,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, valkey: Valkey, store: Store, folder: Path
) -> Iterator[Api]:
    tokens.create(store, "root", ["admin"])
    started = Api(tmp_path_factory.mktemp("api"), valkey.url, **environment(folder))
    yield started
    started.close()


@pytest.fixture
def make(store: Store) -> Any:
    """A token with these scopes: its text."""
    return lambda *scopes: tokens.create(store, "test", scopes)[1]


@pytest.fixture
def began(folder: Path) -> Any:
    """Return once a tool was called with this text."""
    served = folder / tool_server.SERVED
    return lambda text: wait_until(lambda: served.exists() and f'"{text}"' in served.read_text())


async def names(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


def test_a_set_is_offered_to_who_may_use_it(api: Api, make: Any) -> None:
    user, other = make("tools:notes"), make("send:*", "read:*", "operate")
    offered = with_client(names, api.url, user)
    plain = {f"notes__{tool}" for tool in tool_server.TOOLS if " " not in tool}
    odd = "notes__odd_name_of_a_tool"
    assert {name for name in offered if "__" in name} == {*plain, odd}
    assert call(api.url, odd, user, text="a").text == "odd.name of a tool: a"
    assert with_client(names, api.url, user, mode="legacy") == offered
    assert len(with_client(names, api.url, make("tools:*"))) > len(offered)
    assert [name for name in with_client(names, api.url, other) if "__" in name] == []
    assert call(api.url, "notes__read_echo", user, text="a").text == "read_echo: a"
    for token, tool in ((other, "notes__read_echo"), (user, "reads__read_echo")):
        refused = call(api.url, tool, token, text="a")
        assert (refused.refused, "scope tools:" in refused.text) == (True, True)
    failed = call(api.url, "notes__read_wrong", user)
    assert (failed.refused, failed.text) == (True, "the disk is full")
    wrong = with_client(lambda client: error(client, "notes__read_refused"), api.url, user)
    assert (wrong.code, wrong.data) == (-32042, {"known": ["this", "that"]})
    assert "tools.notes: the server answered: no such thing" in wrong.message
    died = call(api.url, "notes__write_die", user)
    assert (died.refused, "exit code 3" in died.text) == (True, True)
    assert call(api.url, "notes__read_echo", user, text="b").text == "read_echo: b"


def test_a_busy_session_says_when_to_come_back(api: Api, store: Store, make: Any) -> None:
    async def read(client: Client) -> Any:
        return await answer(client, "notes__read_echo", text="a")

    async def refused(client: Client) -> Any:
        return await error(client, "notes__read_echo", text="a")

    token = make("admin")
    with SessionLock(store, "chat", "somebody's turn"):
        busy = with_client(refused, api.url, token, fleet_session="chat")
        assert (busy.code, "'chat'" in busy.message) == (BUSY, True)
        assert 0 < busy.data["retry_after_s"] <= 60

        async def named(client: Client) -> Any:
            meta = {"fleet/session": "chat"}
            return await error(client, "notes__read_echo", meta=meta, text="a")

        assert with_client(named, api.url, token).code == BUSY
        joined = {"fleet_session": "chat", "fleet_turn": "somebody's turn"}
        assert not with_client(read, api.url, token, **joined).refused
        assert not with_client(read, api.url, token).refused
    assert not with_client(read, api.url, token, fleet_session="chat").refused


def test_reads_of_a_client_run_beside_each_other_and_writes_alone(
    api: Api, make: Any, began: Any, folder: Path
) -> None:
    token = make("admin")

    async def work(client: Client) -> None:
        reads = [
            asyncio.create_task(answer(client, "reads__write_gate", text=name))
            for name in ("r1", "r2")
        ]
        for name in ("r1", "r2"):
            await asyncio.to_thread(began, name)
        busy = await error(client, "notes__write_gate", text="w1")
        assert busy.code == BUSY
        # Who has another token has another session.
        other = await asyncio.to_thread(call, api.url, "notes__read_echo", make("admin"), text="a")
        assert other.text == "read_echo: a"
        for name in ("r1", "r2"):
            (folder / name).touch()
        assert [(await read).text for read in reads] == ["write_gate: r1", "write_gate: r2"]

    with_client(work, api.url, token)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_that_goes_frees_its_session_at_once(
    api: Api, store: Store, make: Any, began: Any, mode: str
) -> None:
    async def leave(client: Client) -> None:
        calling = asyncio.create_task(answer(client, "notes__write_gate", text=f"never-{mode}"))
        await asyncio.to_thread(began, f"never-{mode}")
        assert locks.held_by(store, locks.session("short"))
        calling.cancel()

    with_client(leave, api.url, make("admin"), mode=mode, fleet_session="short")
    wait_until(lambda: not locks.held_by(store, locks.session("short")), 5)


def test_a_call_that_is_cancelled_over_another_request_ends_at_once(
    api: Api, store: Store, make: Any, began: Any
) -> None:
    """The connection of the call stays open, and its locks are free."""
    token = make("admin")
    headers = {
        "authorization": f"Bearer {token}",
        "accept": "application/json, text/event-stream",
        "fleet-session": "kept open",
    }

    def post(method: str, params: Any, **more: Any) -> httpx.Response:
        message = {"jsonrpc": "2.0", "method": method, "params": params, **more}
        return httpx.post(f"{api.url}/mcp", json=message, headers=headers, timeout=30)

    def cancel(request_id: Any) -> None:
        params = {"requestId": request_id, "reason": "enough"}
        assert post("notifications/cancelled", params).status_code == 202

    with ThreadPoolExecutor(2) as pool:
        params = {"name": "notes__write_gate", "arguments": {"text": "never-cancelled"}}
        calling = pool.submit(post, "tools/call", params, id=7)
        began("never-cancelled")
        assert locks.held_by(store, locks.session("kept open"))
        cancel(8)
        headers["fleet-session"] = "another"
        cancel(7)
        assert locks.held_by(store, locks.session("kept open"))
        headers["fleet-session"] = "kept open"
        cancel(7)
        answered = calling.result(30).json()
    assert (answered["id"], answered["error"]["code"]) == (7, -32800)
    wait_until(lambda: not locks.held_by(store, locks.session("kept open")), 5)


def test_a_lock_that_was_lost_is_told(
    api: Api, store: Store, make: Any, began: Any, folder: Path
) -> None:
    async def work(client: Client) -> Any:
        calling = asyncio.create_task(answer(client, "notes__write_gate", text="lost"))
        await asyncio.to_thread(began, "lost")
        (hold,) = locks.held_by(store, locks.session("frail"))
        locks.end(store, locks.session("frail"), hold)
        (folder / "lost").touch()
        return await calling

    found = with_client(work, api.url, make("admin"), fleet_session="frail")
    assert found.refused
    assert "others may have been called beside it" in found.text
    assert found.text.endswith("write_gate: lost")


def test_an_api_that_ends_gives_back_what_is_under_way(
    valkey: Valkey, store: Store, make: Any, began: Any, folder: Path, make_api: MakeApi
) -> None:
    ending = make_api(valkey.url, **environment(folder))

    async def end(client: Client) -> None:
        calling = asyncio.create_task(error(client, "notes__write_gate", text="late"))
        await asyncio.to_thread(began, "late")
        assert locks.held_by(store, locks.session("last"))
        assert await asyncio.to_thread(ending.end) == (0, "")
        assert (await calling).code == STORE_AWAY

    with_client(end, ending.url, make("admin"), fleet_session="last")
    assert not locks.held_by(store, locks.session("last"))


def test_without_a_store_nothing_is_called_unless_that_is_wanted(
    tmp_path: Path, make_api: MakeApi
) -> None:
    server = Valkey(tmp_path, durable=True).start()
    try:
        closed = make_api(server.url, **environment(tmp_path))
        opened = make_api(server.url, **environment(tmp_path, FLEET_LOCKS__ON_STORE_DOWN="open"))
        for api in (closed, opened):
            assert call(api.url, "notes__read_echo", text="a").text == "read_echo: a"

        async def refused(client: Client) -> Any:
            return await error(client, "notes__read_echo", text="a")

        with away(server):
            down = with_client(refused, closed.url)
            assert (down.code, down.data["retry_after_s"] > 0) == (STORE_AWAY, True)
            assert "read_echo was not called" in down.message
            assert call(opened.url, "notes__read_echo", text="a").text == "read_echo: a"
        assert call(closed.url, "notes__read_echo", text="a").text == "read_echo: a"
    finally:
        server.kill()
