"""A tool server as its client sees it, whatever it does: a program, and one on HTTP."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleet import runtime
from fleet.config import settings
from fleet.config.tools import ToolsConfig
from fleet.tools.mcp import connection, program, web
from fleet.tools.mcp.errors import ToolServerError
from fleet.tools.mcp.server import ToolServer
from fleet.turn.turn import TurnFailed
from tasks.tools import Toolset
from tests.fakes import tool_server
from tests.fakes.tool_web import TOKEN
from tests.fixtures.fleet import ROOT
from tests.fixtures.processes import gone, no_leftovers, wait_until
from tests.fixtures.valkey import free_port

__all__ = ["no_leftovers"]

pytestmark = pytest.mark.usefixtures("no_leftovers")

SERVER = (sys.executable, "-S", str(Path(tool_server.__file__)))

Use = Callable[[ToolServer], Coroutine[Any, Any, None]]


def using(section: ToolsConfig, use: Use) -> None:
    """Runs `use` with a server, and closes it."""

    async def whole() -> None:
        server = ToolServer("kit", section)
        try:
            await use(server)
        finally:
            await server.close()

    asyncio.run(whole())


async def said(server: ToolServer, name: str, text: str = "", timeout_s: float = 20.0) -> str:
    """The text of a result, or the sentence of an error."""
    try:
        result = await server.call_tool(name, {"text": text}, timeout_s=timeout_s)
    except ToolServerError as error:
        return str(error)
    return "".join(getattr(block, "text", "?") for block in result.content)


async def names(server: ToolServer) -> list[str]:
    return [tool.name for tool in await server.list_tools()]


async def refused(server: ToolServer) -> str:
    with pytest.raises(ToolServerError) as found:
        await server.list_tools()
    return str(found.value)


def fake(folder: Path, *modes: str, **terms: Any) -> ToolsConfig:
    return ToolsConfig(command=(*SERVER, *modes), cwd=str(folder), **terms)


def served(folder: Path) -> str:
    return (folder / tool_server.SERVED).read_text()


def test_tools_are_listed_once_and_again_when_they_change(tmp_path: Path) -> None:
    async def use(server: ToolServer) -> None:
        first = (await asyncio.gather(names(server), names(server)))[1]
        assert set(first) == set(tool_server.TOOLS)
        assert await names(server) == first
        assert served(tmp_path).count('"list"') == 2  # pages
        await said(server, "write_more")
        for _ in range(500):  # it is told beside the result
            if "read_more" in await names(server):
                break
            await asyncio.sleep(0.01)
        assert served(tmp_path).count('"list"') <= 6

    using(fake(tmp_path), use)


def test_one_session_serves_many_calls_at_once(tmp_path: Path) -> None:
    async def use(server: ToolServer) -> None:
        started = time.monotonic()
        slow = await asyncio.gather(*(said(server, "read_slow", "1.5") for _ in range(10)))
        assert slow == ["read_slow: 1.5"] * 10
        assert time.monotonic() - started < 10, "one after the other takes 15 s"
        assert served(tmp_path).count('"start"') == 1

    using(fake(tmp_path), use)


def test_a_call_that_takes_too_long_is_cancelled_and_the_others_go_on(tmp_path: Path) -> None:
    async def use(server: ToolServer) -> None:
        late, other = await asyncio.gather(
            said(server, "read_slow", "5", 0.2), said(server, "read_slow", "0.5")
        )
        assert late == "tools.kit: the server took longer than 0.2 s for read_slow."
        assert other == "read_slow: 0.5"
        assert '"cancelled"' in served(tmp_path)
        assert served(tmp_path).count('"start"') == 1

    using(fake(tmp_path), use)


def test_a_server_of_the_newer_protocol_alone(tmp_path: Path) -> None:
    async def use(server: ToolServer) -> None:
        assert await said(server, "read_echo", "half \ud800") == "read_echo: half ?"
        late = await said(server, "read_slow", "5", 0.1)
        assert late == "tools.kit: the server took longer than 0.1 s for read_slow."
        await said(server, "write_more")
        assert "read_more" in await names(server)
        assert served(tmp_path).count('"start"') == 1

    using(fake(tmp_path, "newer"), use)


def test_nothing_of_a_hung_program_stays(tmp_path: Path) -> None:
    async def use(server: ToolServer) -> None:
        left = [int(pid) for pid in (await said(server, "write_fork")).split()]
        left.append(int(await said(server, "read_pid")))
        assert "hangs and is ended" in await said(server, "read_stuck", timeout_s=0.1)
        assert int(await said(server, "read_pid")) not in left
        wait_until(lambda: all(map(gone, left)))

    using(fake(tmp_path, "stubborn"), use)


def test_too_long_a_message_ends_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "MESSAGE_BYTES_MAX", 1 << 20)

    async def use(server: ToolServer) -> None:
        assert "sent a message of more than 1 MiB" in await said(server, "read_big", "2")
        assert await said(server, "read_echo", "again") == "read_echo: again"

    using(fake(tmp_path), use)


@pytest.mark.parametrize(
    ("modes", "sentence"),
    [
        (["never", "stubborn"], "did not answer `initialize` within 0.5 s"),
        (["garbage"], "within 0.5 s, and it prints text that is not a message of the protocol"),
        (["broken"], "ended with exit code 1"),
    ],
)
def test_a_program_that_does_not_greet(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    modes: list[str],
    sentence: str,
) -> None:
    monkeypatch.setattr(connection, "START_S", 0.5)
    caplog.set_level(logging.DEBUG, "fleet")

    async def use(server: ToolServer) -> None:
        found = await asyncio.gather(refused(server), refused(server), said(server, "read_echo"))
        assert all(sentence in one for one in found)
        # And nobody tries again at once.
        assert sentence in await refused(server)
        assert served(tmp_path).count('"start"') == 1

    using(fake(tmp_path, *modes, timeout_s=0.5), use)
    assert "This is no protocol" not in caplog.text


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    async def use(server: ToolServer) -> None:
        assert "there is no program 'no-such-thing' that can be run" in await refused(server)

    using(ToolsConfig(command=("no-such-thing",), cwd=str(tmp_path)), use)


def test_a_program_gets_no_secret_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("FLEET_BROKER_URL", "SOME_API_KEY", "DATABASE_URL", "GITHUB_TOKEN", "OURS", "LANG")
    for name in names:
        monkeypatch.setenv(name, "mine")

    async def use(server: ToolServer) -> None:
        found = [await said(server, "read_env", name) for name in names]
        assert found == [*["not there"] * 3, "given", "mine", "mine"]

    given: Any = {"GITHUB_TOKEN": "given", "OURS": "$OURS"}
    section = fake(tmp_path, env=given)
    assert "given" not in repr(section)
    using(section, use)


def test_a_variable_of_ours_that_is_not_there(tmp_path: Path) -> None:
    async def use(server: ToolServer) -> None:
        assert "there is no variable NOT_SET here" in await refused(server)

    given: Any = {"TOKEN": "$NOT_SET"}
    using(fake(tmp_path, env=given), use)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def listening(port: int, *more: str) -> Iterator["subprocess.Popen[bytes]"]:
    argv = [sys.executable, "-m", "tests.fakes.tool_web", str(port), *more]
    with subprocess.Popen(argv, cwd=ROOT) as process:
        try:
            wait_until(lambda: answers(port))
            yield process
        finally:
            process.kill()


def at(port: int, token: str = TOKEN) -> ToolsConfig:
    headers: Any = {"authorization": f"Bearer {token}"}
    return ToolsConfig(url=f"http://127.0.0.1:{port}/mcp", headers=headers)


@pytest.mark.parametrize("kind", ["events", "json"])
def test_a_server_on_http_comes_and_goes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(web, "MESSAGE_BYTES_MAX", 4 << 20)

    async def use(server: ToolServer) -> None:
        assert "cannot be reached" in await refused(server)
        with listening(port, kind) as process:
            await asyncio.sleep(1.1)  # the pause before the next try
            assert await names(server) == ["read_echo", "read_slow", "read_big", "write_more"]
            calls = ("read_echo", "hello \ud800", 5), ("read_slow", "9", 0.2), ("read_big", "1", 20)
            echo, late, big = await asyncio.gather(*(said(server, *call) for call in calls))
            assert (echo, len(big)) == ("hello ?", 1 << 20)
            assert late == "tools.kit: the server took longer than 0.2 s for read_slow."
            assert "more than 4 MiB" in await said(server, "read_big", "5")
            assert await said(server, "write_more") == "more"
            assert "read_more" in await names(server)
            if kind == "json":
                process.send_signal(signal.SIGSTOP)
                assert "hangs and is ended" in await said(server, "read_echo", "", 0.2)
        with listening(port, kind):
            assert await said(server, "read_echo", "new session") == "new session"
        assert "in the middle of it" in await said(server, "read_echo")

    using(at(port), use)


def test_a_server_on_http_that_forgets_its_sessions() -> None:
    port = free_port()

    async def use(server: ToolServer) -> None:
        with listening(port, "json"):
            assert await said(server, "read_echo", "one") == "one"
        with listening(port, "json"):
            assert await said(server, "read_echo", "two") == "two"
            wrong = ToolServer("other", at(port, "no"))
            assert await refused(wrong) == "tools.other: the server answered 401 Unauthorized."

    using(at(port), use)


def test_a_turn_without_its_server_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(
        f"""
        [agents.a]
        model = "x/y"
        tools = ["s"]
        [tools.s]
        command = {[*SERVER, "broken"]}
        cwd = "{tmp_path}"
        """
    )
    monkeypatch.setenv("FLEET_CONFIG", str(path))
    settings.load.cache_clear()
    runtime.set_current(None)
    turn: Any = SimpleNamespace(
        agent=settings.load().agents["a"], deadline=time.monotonic() + 30, remaining_s=30
    )
    with pytest.raises(TurnFailed) as failed:
        Toolset.of(turn)
    settings.load.cache_clear()
    runtime.set_current(None)
    failure = failed.value.failure
    assert failure.reason == "tools.s: the server ended with exit code 1."
    assert (failure.stage, failure.retryable) == ("tool", True)
