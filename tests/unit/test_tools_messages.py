"""Messages that go back to a model, and errors of a wrong configuration of tools."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import runtime
from fleet.config import settings
from fleet.turn.turn import TurnFailed
from tasks.tools import Toolset, declined, numbered, portable


def call(name: Any, arguments: Any, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"name": name, "arguments": arguments}}


@given(name=st.none() | st.text(), arguments=st.none() | st.text() | st.lists(st.integers()))
def test_any_provider_takes_back_what_a_model_asked(name: Any, arguments: Any) -> None:
    (asked,) = numbered([call(name, arguments)], 7)
    (plain,) = portable({"role": "assistant", "tool_calls": [asked]})["tool_calls"]
    assert plain["id"] == "call_7"
    assert plain["type"] == "function"
    assert 0 < len(plain["function"]["name"]) <= 64
    assert isinstance(json.loads(plain["function"]["arguments"]), dict)


def test_what_is_right_goes_back_as_it_came() -> None:
    asked = call("read_note", '{"name": "a"}', id="x", type="function")
    message = {"role": "assistant", "content": "so", "tool_calls": [asked]}
    assert portable(message) == message


def test_each_call_that_is_declined_has_its_answer() -> None:
    first, second = numbered([call("a", "{}", id="x"), call("b", "{}")], 3)
    answers = declined([first, second], "no more")
    assert [one["tool_call_id"] for one in answers] == ["x", "call_4"]
    assert {one["content"] for one in answers} == {'{"error": "no more"}'}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Its `fleet.toml` is the configuration."""
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    settings.load.cache_clear()
    runtime.set_current(None)
    yield tmp_path
    settings.load.cache_clear()
    runtime.set_current(None)


@pytest.mark.parametrize(
    ("tools", "sentence"),
    [
        ({"x": "no_such_module:tools"}, "no_such_module:tools cannot be imported"),
        ({"x": "tests.fixtures.tools:no_such"}, "cannot be imported"),
        ({"x": "tests.fixtures.tools:read_note"}, "tools.x.python: .* must be a list of functions"),
        (
            {"x": "tests.fixtures.tools:kit", "y": "tests.fixtures.tools:kit"},
            "two of the agent's tools are named read_note",
        ),
    ],
)
def test_tools_that_cannot_be_had_fail_the_turn_for_good(
    folder: Path, tools: dict[str, str], sentence: str
) -> None:
    tables = [f'[tools.{name}]\npython = "{path}"\n' for name, path in tools.items()]
    agent = f"[agents.a]\nmodel = 'x/y'\ntools = {list(tools)}\n"
    (folder / "fleet.toml").write_text(agent + "".join(tables))
    turn: Any = SimpleNamespace(agent=settings.load().agents["a"])
    with pytest.raises(TurnFailed, match=sentence) as failed:
        Toolset.of(turn)
    assert not failed.value.failure.retryable
