"""The health document, from live values and without secrets."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fleet.config.settings import Settings
from fleet.errors import BrokerUnavailable
from fleet.formats.redaction import mask_url
from fleet.intake.spool.folder import SpoolFull
from fleet.ledger import State, agent_rows, bus, processes, removed, views
from fleet.ledger.states import WAITING
from fleet.runtime import Runtime
from fleet.store import Store, keys
from fleet.store.address import plain_url
from fleet.store.connection import reachable
from fleet.turn import providers
from fleet.version import VERSION

#: Beat counts as dead after this long without a tick of any job.
BEAT_LATE_S = 15.0


def beat_is_late(beat_s: float | None) -> bool:
    """True when beat is dead; `beat_s` is the time since its last tick, None for never."""
    return beat_s is None or beat_s > BEAT_LATE_S


@dataclass(frozen=True, slots=True)
class HealthScope:
    """The part of the fleet that a reader may see."""

    agents: tuple[str, ...]
    whole: bool = False  #: with what is of no agent: addresses, providers, clients

    @classmethod
    def of_all(cls, settings: Settings) -> "HealthScope":
        """The whole fleet."""
        return cls(tuple(settings.agents), whole=True)


def document(
    runtime: Runtime,
    scope: HealthScope | None = None,
    *,
    followers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document of `/health` and `fleet health`; `down` when the store does not answer.

    Without a scope it is of the whole fleet. `followers` are this process's figures about bus
    clients.
    """
    scope = scope or HealthScope.of_all(runtime.settings)
    try:
        reading = _read(runtime, scope)
    except BrokerUnavailable as error:
        return down(str(error), runtime, scope, followers=followers)
    return _document(runtime, scope, reading, followers)


def spool_status(runtime: Runtime) -> dict[str, Any]:
    """Breaker and spool of this machine; `spooled` is None where the spool cannot be read."""
    spooled, direct = None, {"running": 0, "ended": 0}
    with suppress(SpoolFull):
        spooled = runtime.spool.size().events
        if runtime.spool.runs_offline:
            direct = runtime.spool_ledger.counts()
    return {"breaker": runtime.breaker.name, "spooled": spooled, "direct": direct}


def down(
    reason: str,
    runtime: Runtime,
    scope: HealthScope,
    *,
    followers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document while the store is down; the spool may still accept events.

    It has the same keys. What only the store knows is null, or empty.
    """
    return _document(runtime, scope, _Reading(), followers, reason)


@dataclass(frozen=True, slots=True)
class _Vitals:
    epoch: str | None = None
    length: int | None = None
    beat_s: float | None = None  #: since the last tick of any periodic job
    oldest_id: str | None = None
    lost: str = ""  #: why the fleet stands still: the store went back
    #: The way of the upstream's events; `http` without an upstream.
    intake: str | None = None


@dataclass(frozen=True, slots=True)
class _Reading:
    """The answers of the store; none while it is down."""

    vitals: _Vitals = field(default_factory=_Vitals)
    counts: Mapping[str, Mapping[str, Any]] | None = None
    agents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    providers: Mapping[str, Any] = field(default_factory=dict)
    removed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    last_id: str | None = None
    failing: Sequence[Mapping[str, Any]] | None = None
    wakeup_fault: str = ""


def _read(runtime: Runtime, scope: HealthScope) -> _Reading:
    store, names = runtime.store, list(scope.agents)
    return _Reading(
        vitals=_vitals(store),
        counts=views.counts(store, names),
        agents=agent_rows.rows(store, names),
        providers=providers.states(store) if scope.whole else {},
        removed=removed.work(store, names) if scope.whole else {},
        last_id=bus.last_id(store),
        failing=processes.failing(store),
        wakeup_fault=runtime.wakeup_fault,
    )


def _document(
    runtime: Runtime,
    scope: HealthScope,
    reading: _Reading,
    followers: Mapping[str, Any] | None,
    reason: str | None = None,
) -> dict[str, Any]:
    settings, vitals, agents = runtime.settings, reading.vitals, reading.agents
    spool, work = spool_status(runtime), _work(reading.counts)
    consuming = all(row["consuming"] for row in agents.values())
    spooling = spool["breaker"] != "closed" or spool["spooled"] != 0
    troubles = spooling or vitals.lost or beat_is_late(vitals.beat_s) or not consuming
    troubles = troubles or reading.removed or reading.wakeup_fault
    return {
        "status": "down" if reason else "degraded" if troubles else "ok",
        "version": VERSION,
        "reason": reason or vitals.lost or None,
        "epoch": vitals.epoch,
        "g1": {
            "enabled": True,
            "redis_url": _address(settings) if scope.whole else None,
            "length": vitals.length if scope.whole else None,
            "pending": work["pending"],
            "last_id": reading.last_id,
            "oldest_pending_s": work["oldest_s"],
            "wakeups": reading.wakeup_fault or None,
        },
        "g2": _isolation(settings, scope, agents) | {"removed": reading.removed},
        "g3": {name: work[name] for name in ("failed", "retrying", "dead", "unverified")},
        "g4": {
            "intake": vitals.intake,
            **spool,
            "tier": {name: row["tier"] for name, row in agents.items()},
            "providers": reading.providers,
        },
        "failing": reading.failing,
        "beat": {"last_tick_s": vitals.beat_s},
        "bus": _bus(settings, vitals, _shown_followers(scope, followers)),
        "saturation": {
            "queued": work["queued"],
            "active": work["active"],
            "capacity": len(scope.agents),
            "oldest_s": work["oldest_s"],
        },
    }


def _address(settings: Settings) -> str | None:
    """The broker's address without its password; None while no embedded broker runs."""
    try:
        return mask_url(plain_url(settings))
    except BrokerUnavailable:
        return None


def _work(counts: Mapping[str, Mapping[str, Any]] | None) -> Mapping[str, float | None]:
    """The sums over all agents; None for each where they are unknown."""
    if counts is None:
        return defaultdict(lambda: None)
    totals: Counter[str] = Counter()
    for row in counts.values():
        totals.update(row["states"])
    return {
        "queued": totals[State.QUEUED],
        "active": totals[State.ACTIVE],
        "pending": sum(totals[state] for state in (*WAITING, State.ACTIVE, State.ANNOUNCING)),
        "failed": totals[State.RETRYING] + totals[State.DEAD],
        "retrying": totals[State.RETRYING],
        "dead": totals[State.DEAD],
        "unverified": sum(row["unverified"] for row in counts.values()),
        "oldest_s": max((row["oldest_s"] for row in counts.values()), default=0.0),
    }


def _isolation(
    settings: Settings, scope: HealthScope, agents: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "dispatch_timeout_s": settings.dispatch_timeout_s,
        "semaphores": list(scope.agents),
        "agents": {name: _agent(row) for name, row in agents.items()},
    }


def _shown_followers(scope: HealthScope, followers: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The figures about bus clients, with whose they are only for who may see the whole."""
    found = followers or {"clients": 0, "max_lag": 0}
    return found if scope.whole or "slowest" not in found else {**found, "slowest": []}


def _bus(settings: Settings, vitals: _Vitals, followers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **followers,
        "oldest_id": vitals.oldest_id,
        "retention_s": settings.bus.max_age_s,
        "retention_entries": settings.bus.max_length,
    }


def _vitals(store: Store) -> _Vitals:
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        pipe.get(keys.EPOCH)
        pipe.zcard(keys.INDEX)
        pipe.hgetall(keys.BEAT)
        pipe.xrange(keys.BUS, count=1)
        pipe.get(keys.UPSTREAM_MODE)
        pipe.hget(keys.LOST, "reason")
        epoch, length, beat, first, mode, lost = pipe.execute()
        now = store.clock.now_ms() / 1000
    ticks = [float(value) for value in beat.values()]
    return _Vitals(
        epoch=epoch,
        length=length,
        beat_s=round(now - max(ticks), 3) if ticks else None,
        oldest_id=first[0][0] if first else None,
        lost=lost or "",
        intake=mode or "http",
    )


def _agent(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "semaphore_locked": row["active"] is not None,
        "holder": row["holder"],
        "held_s": row["held_s"],
        "fence": row["fence"],
        "queued": row["queued"],
        "consuming": row["consuming"] and not row["paused"],
        "reported_s": row["reported_s"],
        "stopped_by": row["hold_reason"],
    }
