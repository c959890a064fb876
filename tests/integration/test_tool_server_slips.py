"""A tool server's slips cost the slip, not the call, the list or the turn."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.config.settings import parse
from fleet.config.tools import ToolsConfig
from fleet.ops.doctor.tool_servers import examine
from fleet.tools.mcp.schema import BadSchema, arguments_schema
from fleet.tools.mcp.server import ToolServer
from tasks.tools.servers import _result_text
from tests.fakes.forgetful_web import ForgetfulServer
from tests.fakes.tool_server import ODD_TOOLS
from tests.fixtures.processes import no_leftovers
from tests.integration.test_tool_server_client import fake, said, served, using

__all__ = ["no_leftovers"]

pytestmark = pytest.mark.usefixtures("no_leftovers")


UNTYPED = "[a part, no type: not shown]"


@pytest.mark.parametrize(
    ("tool", "words"),
    [("read_half", "a \ufffd b \N{GRINNING FACE}"), ("read_bytes", "a \ufffd b")],
)
def test_half_a_character_costs_a_character(tmp_path: Path, tool: str, words: str) -> None:
    async def use(server: ToolServer) -> None:
        started = time.monotonic()
        assert await said(server, tool, timeout_s=60) == words
        assert time.monotonic() - started < 50

    using(fake(tmp_path), use)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ("bare", "[a result without content]"),
        ("fields", '[a result without content]\n{"answer": 42}'),
        ("string", "plain"),
        ("unknown", "[a part, hologram: not shown]\nrest"),
        (
            "torn",
            "\n".join(["[a part, image: not shown]", *[UNTYPED] * 2, '{"kept": true}']),
        ),
        ("list", "[1, 2]"),
    ],
)
def test_what_a_result_has_is_shown_and_the_rest_is_named(
    tmp_path: Path, shape: str, text: str
) -> None:
    async def use(server: ToolServer) -> None:
        result = await server.call_tool("read_shape", {"text": shape}, timeout_s=60)
        assert (_result_text(result), result.is_error) == (text, False)

    using(fake(tmp_path), use)


def test_an_error_may_be_told_as_text(tmp_path: Path) -> None:
    async def use(server: ToolServer) -> None:
        result = await server.call_tool("read_shape", {"text": "flag"}, timeout_s=60)
        assert result.is_error

    using(fake(tmp_path), use)


RESULT = '"result": {"content": [{"type": "text", "text": "done"}]}'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(f'[{{"jsonrpc": "2.0", "id": ID, {RESULT}}}]', "done", id="batch"),
        pytest.param(f'{{"jsonrpc": "2.0", "id": ID.0, {RESULT}}}', "done", id="float"),
        pytest.param(
            f'{{"jsonrpc": "2.0", "id": ID, "big": {"9" * 5000}, {RESULT}}}', "done", id="big"
        ),
        pytest.param('{"jsonrpc": "2.0", "id": ID}', "does not allow", id="nothing"),
        *(
            pytest.param(
                f'{{"jsonrpc": "2.0", "id": ID, "error": {{"code": {code}, "message": "full"}}}}',
                f"answered: full (its code: {code})",
                id=str(code),
            )
            for code in (-32000, -32001)
        ),
    ],
)
def test_an_odd_answer_is_the_answer(tmp_path: Path, line: str, words: str) -> None:
    async def use(server: ToolServer) -> None:
        started = time.monotonic()
        assert words in await said(server, "read_line", line, timeout_s=60)
        assert time.monotonic() - started < 50
        pids = [await said(server, "read_pid") for _ in range(2)]
        assert len(set(pids)) == 1

    using(fake(tmp_path), use)


def test_no_result_at_all_is_an_error_at_once(tmp_path: Path) -> None:
    async def use(server: ToolServer) -> None:
        started = time.monotonic()
        assert "what the protocol does not allow" in await said(
            server, "read_shape", "none", timeout_s=60
        )
        assert time.monotonic() - started < 50
        assert await said(server, "read_echo", "on") == "read_echo: on"
        assert served(tmp_path).count('"start"') == 1

    using(fake(tmp_path), use)


def test_a_bad_tool_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "fleet")
    usable = {one["name"] for one in ODD_TOOLS if "use_" in str(one)}

    async def use(server: ToolServer) -> None:
        tools = {tool.name: tool for tool in await server.list_tools()}
        assert {name for name in tools if name.startswith(("use_", "bad_"))} == usable
        assert "read_echo" in tools
        for name in usable:
            assert tools[name].input_schema["type"] == "object"
            assert tools[name].input_schema.get("required", []) == []
        named = {name for name in server.left_out if name.startswith("bad_")}
        assert named == {"bad_list", "bad_type", "bad_part", "bad_required"}
        assert len(server.left_out) == len(named) + 2, "those without a name"
        assert await said(server, "read_echo", "on") == "read_echo: on"

    using(fake(tmp_path, "schemas"), use)
    assert "the tool 'bad_type' is left out: its schema is not that of an object" in caplog.text


def test_the_doctor_names_it(tmp_path: Path) -> None:
    section = fake(tmp_path, "schemas")
    agent = {"model": "echo/brief", "tools": ["kit"]}
    tool = {"command": list(section.command), "cwd": str(tmp_path)}
    settings = parse({"agents": {"a": agent}, "tools": {"kit": tool}})
    faults = [finding.what for finding in examine(settings)]
    assert any("'bad_part' is left out: its schema names a type" in fault for fault in faults)


@pytest.mark.parametrize(
    "schema",
    [
        *("text", {"type": ["object", "null"]}, {"properties": []}, {"anyOf": []}),
        *({"properties": {"a": 1}}, {"enum": 1}, {"items": 3}, {"type": []}),
    ],
)
def test_a_schema_that_a_provider_would_refuse(schema: Any) -> None:
    with pytest.raises(BadSchema):
        arguments_schema(schema)


def test_a_schema_keeps_what_it_says() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"], "default": None, "enum": ["x", None]}},
        "additionalProperties": False,
        "$defs": {"b": True},
        "x-of-theirs": {"anything": 1},
    }
    assert arguments_schema(schema) == schema


@pytest.fixture
def forgetful() -> Iterator[ForgetfulServer]:
    with ForgetfulServer() as server:
        yield server


def at(forgetful: ForgetfulServer, **terms: Any) -> ToolsConfig:
    return ToolsConfig(url=forgetful.url, **terms)


@pytest.mark.parametrize("status", [400, 401, 404])
@pytest.mark.parametrize("tool", ["read_note", "write_note"])
def test_a_lost_session_is_begun_anew_within_the_call(
    forgetful: ForgetfulServer, status: int, tool: str
) -> None:
    async def use(server: ToolServer) -> None:
        assert await said(server, tool, "one") == "one"
        forgetful.forget(status)
        assert await said(server, tool, "two") == "two"
        assert forgetful.noted == ["one", "two"]

    using(at(forgetful), use)


def test_a_write_that_may_have_been_done_is_not_repeated(forgetful: ForgetfulServer) -> None:
    async def use(server: ToolServer) -> None:
        assert await said(server, "write_note", "one") == "one"
        forgetful.forget(500)
        assert "answered 500" in await said(server, "write_note", "two")
        assert forgetful.refused.count("write_note") == 1
        assert await said(server, "write_note", "three") == "three"
        assert forgetful.noted == ["one", "three"]

    using(at(forgetful), use)


@pytest.mark.parametrize("by", ["class", "hint"])
def test_what_only_reads_is_repeated(forgetful: ForgetfulServer, by: str) -> None:
    async def use(server: ToolServer) -> None:
        await server.list_tools()
        forgetful.forget(500)
        assert await said(server, "read_note" if by == "class" else "same_note", "one") == "one"

    using(at(forgetful), use)


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_refusal_in_a_session_that_lives_is_the_answer(
    forgetful: ForgetfulServer, status: int
) -> None:
    async def use(server: ToolServer) -> None:
        assert await said(server, "read_note", "one") == "one"
        forgetful.refuse_next(status)
        assert f"answered {status}" in await said(server, "read_note", "two")
        assert await said(server, "read_note", "three") == "three"
        assert forgetful.sessions_begun == 1

    using(at(forgetful), use)


def test_a_server_that_refuses_all_is_asked_twice_at_most(forgetful: ForgetfulServer) -> None:
    async def use(server: ToolServer) -> None:
        assert await said(server, "read_note", "one") == "one"
        forgetful.close_for(401)
        assert "answered 401" in await said(server, "read_note", "two")
        assert forgetful.sessions_begun == 1

    using(at(forgetful), use)


def test_half_a_character_over_http(forgetful: ForgetfulServer) -> None:
    async def use(server: ToolServer) -> None:
        assert await said(server, "read_half") == "a \ufffd b"
        assert await said(server, "read_half_event") == "a \ufffd b"

    using(at(forgetful), use)
