"""The audit names servers that would lose, refuse or never see a fleet's events."""

import re
from typing import Any, cast

import pytest
import redis

from fleet.broker.audit import Finding, audit

GOOD_INFO = {
    "redis_version": "7.2.4",
    "valkey_version": "9.1.2",
    "server_mode": "standalone",
    "role": "master",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
}
GOOD_OPTIONS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "save": "",
    "timeout": "0",
}


class Server:
    """Answers INFO and CONFIG GET as told, and knows no other command."""

    def __init__(self, info: dict[str, Any], options: dict[str, Any] | None) -> None:
        self._info, self._options = info, options

    def info(self) -> dict[str, Any]:
        return self._info

    def config_get(self, name: str) -> dict[Any, Any]:
        if self._options is None:
            raise redis.ResponseError("unknown command 'CONFIG'")
        return {name: self._options[name]}


def findings(
    info: dict[str, Any] | None = None, options: dict[str, Any] | None = None
) -> list[Finding]:
    server = Server({**GOOD_INFO, **(info or {})}, {**GOOD_OPTIONS, **(options or {})})
    return audit(cast("redis.Redis", server))


def test_nothing_is_wrong_with_a_good_server() -> None:
    assert findings() == [Finding("info", "valkey 9.1.2, standalone, master")]


@pytest.mark.parametrize(
    ("info", "options", "level", "says"),
    [
        ({"valkey_version": None, "redis_version": "6.0.16"}, {}, "error", "too old"),
        ({"server_mode": "cluster"}, {}, "error", "cluster mode"),
        ({"server_mode": None, "redis_mode": "cluster"}, {}, "error", "cluster mode"),
        ({"role": "slave"}, {}, "error", "read-only replica"),
        ({"aof_last_write_status": "err"}, {}, "error", "last write to the AOF failed"),
        ({"aof_last_bgrewrite_status": "err"}, {}, "warning", "last rewrite"),
        ({}, {"appendonly": "no", "save": "3600 1"}, "warning", "AOF is off.*save '3600 1'"),
        ({}, {"appendfsync": "no"}, "warning", "appendfsync is 'no'"),
        ({}, {"appendfsync": "everysec"}, "info", "about 1 s"),
        ({}, {"maxmemory-policy": "allkeys-lru", "maxmemory": "100"}, "error", "maxmemory 100"),
        ({}, {"maxmemory-policy": "allkeys-lru"}, "warning", "'allkeys-lru'"),
        ({}, {"maxmemory-policy": "volatile-ttl", "maxmemory": "9"}, "warning", "'volatile-ttl'"),
        ({}, {"timeout": "300"}, "warning", "idle for 300 s"),
    ],
)
def test_each_fault_is_found_with_its_remedy(
    info: dict[str, Any], options: dict[str, Any], level: str, says: str
) -> None:
    (fault,) = (found for found in findings(info, options) if found.remedy)
    assert fault.level == level
    assert re.search(says, fault.what)


def test_the_worst_comes_first() -> None:
    found = findings({"role": "slave"}, {"appendonly": "no"})
    assert [finding.level for finding in found] == ["error", "warning", "info"]


def test_a_server_that_forbids_config_is_judged_by_what_it_tells() -> None:
    info = {**GOOD_INFO, "aof_enabled": 0, "maxmemory_policy": "allkeys-lru", "maxmemory": 9}
    found = audit(cast("redis.Redis", Server(info, None)))
    assert [finding.level for finding in found] == ["error", "warning", "warning", "info"]
    assert any("CONFIG GET is refused" in finding.what for finding in found)
    assert any("AOF is off" in finding.what for finding in found)


def test_answers_in_bytes_are_understood() -> None:
    class Bytes(Server):
        def config_get(self, name: str) -> dict[Any, Any]:
            return {name.encode(): self._options[name].encode()} if self._options else {}

    client = cast("redis.Redis", Bytes(GOOD_INFO, {**GOOD_OPTIONS, "appendfsync": "no"}))
    assert "appendfsync is 'no'" in audit(client)[0].what
