"""The risks of a given Redis or Valkey for a fleet; the server is never changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import redis

from fleet.broker.binary import MIN_VERSION

Level = Literal["error", "warning", "info"]

#: Idle connections of Celery are pinged rarely; a server that cuts them makes workers reconnect.
IDLE_TIMEOUT_MIN_S = 3600

#: Intake stops at 90 % (`caps.store_memory`), so that accepted events can end.
MEMORY_MAX = 0.8

_OPTIONS = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy", "save", "timeout")


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the server. With level "error" a fleet must not run on it."""

    level: Level
    what: str
    #: The operator's action; empty where none is needed.
    remedy: str = ""
    #: Accepted events would be lost; a fleet may run so, with a warning.
    loses_data: bool = False


def audit(client: "redis.Redis") -> list[Finding]:
    """All findings about the server, the worst first. Raises redis-py's own errors."""
    info: dict[str, Any] = client.info()
    options, refusal = _options(client)
    found = [*_identity(info), *refusal, *_durability(info, options), *_memory(info, options)]
    idle_s = int(options.get("timeout") or 0)
    if 0 < idle_s < IDLE_TIMEOUT_MIN_S:
        found.append(
            Finding(
                "warning",
                f"clients that idle for {idle_s} s are cut off, so that workers keep reconnecting",
                "CONFIG SET timeout 0",
            )
        )
    return sorted(found, key=lambda finding: ("error", "warning", "info").index(finding.level))


def _options(client: "redis.Redis") -> tuple[dict[str, str], list[Finding]]:
    """The options asked for; one call each, since a server before 7.0 takes one pattern a call."""
    options: dict[str, str] = {}
    try:
        for name in _OPTIONS:
            answer: dict[Any, Any] = client.config_get(name)
            options.update({_text(key): _text(value) for key, value in answer.items()})
    except redis.ResponseError as error:  # managed servers rename or forbid CONFIG
        what = f"CONFIG GET is refused ({error}), so appendfsync and timeout cannot be checked"
        return {}, [
            Finding("warning", what, "check them in the console of whoever runs the server")
        ]
    return options, []


def _identity(info: dict[str, Any]) -> Iterator[Finding]:
    flavour = "valkey" if info.get("valkey_version") else "redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "0")
    # Valkey calls it server_mode, and redis_mode only while it imitates Redis.
    mode = info.get("server_mode") or info.get("redis_mode") or "unknown"
    yield Finding("info", f"{flavour} {version}, {mode}, {info.get('role', 'unknown role')}")
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    if numbers < MIN_VERSION:
        yield Finding(
            "error", f"{flavour} {version} is too old", "use Valkey, or Redis 6.2 or newer"
        )
    if mode == "cluster":
        yield Finding(
            "error",
            "the server runs in cluster mode, which Celery's transport does not speak",
            "use a standalone server, with Sentinel if it must fail over",
        )
    if info.get("role") in ("slave", "replica"):
        yield Finding(
            "error", "the server is a read-only replica", "use the address of the primary"
        )


def _durability(info: dict[str, Any], options: dict[str, str]) -> Iterator[Finding]:
    aof = options.get("appendonly", "yes" if info.get("aof_enabled") else "no")
    if aof != "yes":
        saves = f" (save {options['save']!r})" if "save" in options else ""
        yield Finding(
            "warning",
            f"AOF is off: a crash loses every event accepted since the last snapshot{saves}",
            "CONFIG SET appendonly yes, then CONFIG REWRITE",
            loses_data=True,
        )
    elif options.get("appendfsync") == "no":
        yield Finding(
            "warning",
            "appendfsync is 'no': a power loss takes about 30 s of accepted events with it",
            "CONFIG SET appendfsync always, then CONFIG REWRITE",
            loses_data=True,
        )
    elif options.get("appendfsync") == "everysec":
        yield Finding(
            "info",
            "appendfsync is 'everysec': a power loss takes about 1 s of accepted events with it",
            "CONFIG SET appendfsync always",
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        yield Finding(
            "error", "the last write to the AOF failed", "free disk space on the server", True
        )
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Finding("warning", "the last rewrite of the AOF failed", "free disk space and memory")
    if aof != "yes" and info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield Finding("warning", "the last snapshot failed", "free disk space and memory")


def _memory(info: dict[str, Any], options: dict[str, str]) -> Iterator[Finding]:
    most, used = int(info.get("maxmemory") or 0), int(info.get("used_memory") or 0)
    if most and used > most * MEMORY_MAX:
        what = f"{used / most:.0%} of the server's maxmemory is used: soon it takes no events"
        yield Finding("warning", what, "CONFIG SET maxmemory higher, or give it a larger machine")
    policy = options.get("maxmemory-policy") or str(info.get("maxmemory_policy") or "unknown")
    if policy == "noeviction":
        return
    limit = int(options.get("maxmemory") or info.get("maxmemory") or 0)
    # Without a limit nothing is evicted yet; volatile-* spares what has no time to live.
    deletes = limit > 0 and policy.startswith("allkeys")
    yield Finding(
        "error" if deletes else "warning",
        f"maxmemory-policy is {policy!r} (maxmemory {limit}): a full server deletes queued events",
        "CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE",
        loses_data=deletes,
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
