"""Every option of a session with a wrong value is refused at the start, by its key."""

from typing import Any

import pytest

from fleet.config.settings import Settings, parse
from fleet.errors import ConfigError

AGENT = {"runner": "python", "python": "mine:answer"}


def settings(agent: dict[str, Any] | None = None, **tables: Any) -> Settings:
    return parse({"agents": {"a": {**AGENT, **(agent or {})}}, **tables})


@pytest.mark.parametrize("value", ["queue", "", 1, True, ["reject"], {}])
def test_on_busy_is_one_of_four(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^agents\.a\.on_busy: .*'coalesce'"):
        settings({"on_busy": value})


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("history_messages", [-1, 1001, 1.5, "many", True, None]),
        ("history_tokens", [0, -1, 1_000_001, "many", True]),
        ("history_ttl_s", [0, -1, "week", True, float("nan"), float("inf")]),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(key: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"^sessions\.{key}: .*\.$"):
            settings(sessions={key: value})


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^sessions\.history: unknown key; did you mean history_ttl_s\?$"
    ):
        settings(sessions={"history": 3})


@pytest.mark.parametrize("key", ["coalesce_window_s", "coalesce_max_s"])
@pytest.mark.parametrize("value", [0, -1, "soon", True, float("nan")])
def test_a_wrong_window_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^sessions\.{key}: .*\.$"):
        settings(sessions={key: value})


def test_the_longest_wait_is_no_shorter_than_the_window() -> None:
    with pytest.raises(ConfigError, match=r"^sessions: coalesce_max_s must be at least"):
        settings(sessions={"coalesce_window_s": 20})


@pytest.mark.parametrize("value", [-1, 10, 1.5, "high", True, None, [3]])
def test_a_lane_that_is_no_priority_is_refused_by_its_key(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^lanes\.night: .*\.$"):
        settings(lanes={"night": value})


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "x" * 65])
def test_a_lane_has_a_plain_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^lanes\..*a name is letters, digits"):
        settings(lanes={name: 3})


def test_lanes_are_added_to_those_there_are() -> None:
    rules = settings(lanes={"night": 1, "human": 8}).rules()
    assert rules.lanes == {"human": 8, "default": 5, "background": 0, "night": 1}


@pytest.mark.parametrize("value", [0, -1, "soon", True, float("inf")])
def test_ageing_is_a_time(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^fleet\.ageing_s: "):
        settings(fleet={"ageing_s": value})
