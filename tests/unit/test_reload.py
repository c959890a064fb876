"""Which processes a changed key reaches, and which agents a reload waits for."""

import socket

import pytest

from fleet.config.settings import parse
from fleet.supervisor.reload import _has_left, _is_elsewhere, _stays
from fleet.supervisor.renewals import reads

EVERYBODY = {"agents", "shared", "delivery", "upstream", "api", "beat", "flower"}


@pytest.mark.parametrize(
    ("key", "reached"),
    [
        ("agents.a.instructions", {"agents", "shared", "delivery", "upstream", "api"}),
        ("routes.default", {"agents", "shared", "delivery", "upstream", "api"}),
        ("fleet.drain_s", {"agents", "shared", "delivery", "upstream", "api"}),
        ("api.token_rate_per_s", {"api"}),
        ("api.public_url", {"agents", "shared", "delivery", "upstream", "api"}),
        ("mcp.tools", {"api"}),
        ("alerts.webhook", {"api", "shared"}),
    ],
)
def test_a_key_reaches_the_processes_that_read_it(key: str, reached: set[str]) -> None:
    assert {process for process in EVERYBODY if reads(process, key)} == reached


def test_a_successor_is_known_by_its_token() -> None:
    settings = parse({"agents": {"a": {"model": "echo/brief"}}})
    old = {"a": 7, "gone": 3}
    row = {"consuming": True, "online": True}
    assert not _has_left({"a": {**row, "fence": 7}}, "a", old, settings)
    assert not _has_left({"a": {**row, "fence": 8, "consuming": False}}, "a", old, settings)
    assert _has_left({"a": {**row, "fence": 8}}, "a", old, settings)
    assert not _has_left({"gone": {**row, "fence": 3}}, "gone", old, settings)
    assert _has_left({"gone": {**row, "fence": 3, "online": False}}, "gone", old, settings)
    assert not _has_left({}, "a", old, settings), "the broker is away"


def test_a_worker_of_another_host_is_not_waited_for() -> None:
    assert not _is_elsewhere(None)
    assert not _is_elsewhere(f"{socket.gethostname()}:17")
    assert _is_elsewhere("elsewhere:17")


def test_a_worker_that_does_not_leave_is_no_successor_that_failed() -> None:
    rows = {"a": {"online": True, "fence": 7}, "b": {"online": False, "fence": 7}}
    assert _stays(rows, "a", {"a": 7})
    assert not _stays(rows, "a", {"a": 6}), "a successor, which takes no work"
    assert not _stays(rows, "b", {"b": 7}), "nobody works for it"
    assert not _stays({}, "a", {"a": 7}), "the broker is away"
    assert not _stays({"a": {"online": True, "fence": 0}}, "a", {"a": 0}), "a new agent"
