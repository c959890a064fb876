"""The health document, from live values and without secrets."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.config.settings import Settings
from fleet.errors import BrokerUnavailable
from fleet.formats.redaction import mask_url
from fleet.intake.spool.folder import SpoolFull
from fleet.ledger import State, bus, views
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


def document(runtime: Runtime, *, followers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The document of `/health` and `fleet health`; `down` when the store does not answer.

    `followers` are this process's figures about bus clients.
    """
    try:
        return _document(runtime, followers or {"clients": 0, "max_lag": 0})
    except BrokerUnavailable as error:
        return down(str(error), runtime)


def spool_status(runtime: Runtime) -> dict[str, Any]:
    """Breaker and spool of this machine; `spooled` is None where the spool cannot be read."""
    try:
        spooled: int | None = runtime.spool.size().events
        direct = runtime.spool_ledger.counts() if runtime.spool.runs_offline else {}
    except SpoolFull:
        spooled, direct = None, {}
    return {
        "breaker": runtime.breaker.name,
        "spooled": spooled,
        **({"direct": direct} if direct else {}),
    }


def down(reason: str, runtime: Runtime) -> dict[str, Any]:
    """The document while the store is down; the spool may still accept events."""
    return {
        "status": "down",
        "version": VERSION,
        "reason": reason,
        "g4": {"intake": "http", **spool_status(runtime), "tier": {}},
    }


def _document(runtime: Runtime, followers: Mapping[str, Any]) -> dict[str, Any]:
    store, settings = runtime.store, runtime.settings
    spool = spool_status(runtime)
    names = list(settings.agents)
    counts = views.counts(store, names)
    agents = views.agents(store, names)
    totals = _totals(counts)
    oldest_s = max((row["oldest_s"] for row in counts.values()), default=0.0)
    vitals = _vitals(store)
    consuming = all(row["consuming"] for row in agents.values())
    spooling = spool["breaker"] != "closed" or spool["spooled"] != 0
    troubles = spooling or vitals.lost or beat_is_late(vitals.beat_s) or not consuming
    return {
        "status": "degraded" if troubles else "ok",
        "version": VERSION,
        "epoch": vitals.epoch,
        "g1": {
            "enabled": True,
            "redis_url": mask_url(plain_url(settings)),
            "length": vitals.length,
            "pending": sum(totals[state] for state in (*WAITING, State.ACTIVE, State.ANNOUNCING)),
            "last_id": bus.last_id(store),
            "oldest_pending_s": oldest_s,
        },
        "g2": _isolation(settings, agents),
        "g3": {
            "failed": totals[State.RETRYING] + totals[State.DEAD],
            "retrying": totals[State.RETRYING],
            "dead": totals[State.DEAD],
            "unverified": sum(row["unverified"] for row in counts.values()),
        },
        "g4": {
            "intake": vitals.intake,
            **spool,
            "tier": {name: row["tier"] for name, row in agents.items()},
            "providers": providers.states(store),
        },
        "beat": {"last_tick_s": vitals.beat_s},
        "bus": _bus(settings, vitals, followers),
        "saturation": _saturation(totals, len(names), oldest_s),
    }


def _isolation(settings: Settings, agents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "dispatch_timeout_s": settings.dispatch_timeout_s,
        "semaphores": list(agents),
        "agents": {name: _agent(row) for name, row in agents.items()},
    }


def _bus(settings: Settings, vitals: "_Vitals", followers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **followers,
        "oldest_id": vitals.oldest_id,
        "retention_s": settings.bus.max_age_s,
        "retention_entries": settings.bus.max_length,
    }


def _saturation(totals: Mapping[str, int], capacity: int, oldest_s: float) -> dict[str, Any]:
    return {
        "queued": totals[State.QUEUED],
        "active": totals[State.ACTIVE],
        "capacity": capacity,
        "oldest_s": oldest_s,
    }


def _totals(counts: dict[str, dict[str, Any]]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for row in counts.values():
        totals.update(row["states"])
    return totals


@dataclass(frozen=True, slots=True)
class _Vitals:
    epoch: str | None
    length: int
    beat_s: float | None  #: since the last tick of any periodic job
    oldest_id: str | None
    lost: bool  #: the store went back, and the fleet stands still
    intake: str  #: the way of the upstream's events; `http` without an upstream


def _vitals(store: Store) -> _Vitals:
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        pipe.get(keys.EPOCH)
        pipe.zcard(keys.INDEX)
        pipe.hgetall(keys.BEAT)
        pipe.time()
        pipe.xrange(keys.BUS, count=1)
        pipe.get(keys.UPSTREAM_MODE)
        pipe.exists(keys.LOST)
        epoch, length, beat, (seconds, micros), first, mode, lost = pipe.execute()
    now = seconds + micros / 1e6
    ticks = [float(value) for value in beat.values()]
    return _Vitals(
        epoch=epoch,
        length=length,
        beat_s=round(now - max(ticks), 3) if ticks else None,
        oldest_id=first[0][0] if first else None,
        lost=bool(lost),
        intake=mode or "http",
    )


def _agent(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "semaphore_locked": row["active"] is not None,
        "holder": row["holder"],
        "held_s": row["held_s"],
        "fence": row["fence"],
        "queued": row["queued"],
        "consuming": row["consuming"] and not row["paused"],
        "reported_s": row["reported_s"],
    }
