"""The work of beat's tasks: repair, retention, and a sign of life."""

import math
import time

from fleet.config.settings import Settings
from fleet.ledger import ValkeyLedger, removed
from fleet.ledger.valkey import LOSSES_MAX
from fleet.store import Store, keys
from fleet.store.calls import ReclaimCall, SweepCall, TickCall
from fleet.store.connection import reachable

RECLAIM_PERIOD_S = 1.0
HEALTH_PERIOD_S = 5.0
SWEEP_PERIOD_S = 10.0
#: Most time that one tick spends on retention, so that repair is never late for it.
SWEEP_S = 3.0
#: Longer than any worker takes to come back or to pop a wake-up.
UNTOUCHED_MS = 15_000
#: A removed agent's last worker may be replaced, by a host that has an older configuration.
REMOVED_MS = 60_000
#: Most dispatches moved in one call, so that a script never holds the server for long.
BATCH = 500


def reclaim_all(ledger: ValkeyLedger, settings: Settings) -> dict[str, int]:
    """Repair the whole fleet once; answers what was done. Raises BrokerUnavailable."""
    keep_ms = int(settings.retention.completed_s * 1000)
    # A pool's workers look after its agents.
    own = [name for name, agent in settings.agents.items() if agent.pool is None]
    calls = [
        ReclaimCall(
            agent=agent,
            keep_ended_ms=keep_ms,
            limit=BATCH,
            untouched_ms=UNTOUCHED_MS,
            keep_dead_ms=int(settings.retention.dead_s * 1000),
            losses_max=LOSSES_MAX,
        )
        for agent in ("", *own)
    ]
    with reachable():
        ledger.store.clock.settle()
    answers = ledger.store.run_many(ReclaimCall, calls)
    record_tick(ledger.store, "reclaim")
    retried, expired = answers[0]
    for agent, (_, _, ask) in zip(own, answers[1:], strict=True):
        if ask and ledger.publisher:
            ledger.publisher(agent, ask)
    return {
        "retried": int(retried),
        "expired": int(expired),
        "rung": sum(int(rung) for rung, _, _ in answers[1:]),
        "offline": sum(int(offline) for _, offline, _ in answers[1:]),
    }


def sweep_all(store: Store, settings: Settings) -> dict[str, int]:
    """Forget what retention allows to forget, in bounded steps. Raises BrokerUnavailable.

    The turns of removed agents end here too: rarely, since finding these agents reads all counts.
    """
    calls = [
        ReclaimCall(
            agent=agent,
            keep_ended_ms=int(settings.retention.completed_s * 1000),
            limit=BATCH,
            untouched_ms=UNTOUCHED_MS,
            removed_ms=REMOVED_MS,
            keep_dead_ms=int(settings.retention.dead_s * 1000),
        )
        for agent in removed.work(store, settings.agents)
    ]
    if calls:
        store.run_many(ReclaimCall, calls)
    ended, dead, trimmed = sweep(store, sweep_call(settings), SWEEP_S)
    return {"ended": ended, "dead": dead, "trimmed": trimmed}


def sweep(store: Store, call: SweepCall, most_s: float = math.inf) -> tuple[int, int, int]:
    """Repeat a step until there is nothing left to forget; how much of each kind was forgotten."""
    until = time.monotonic() + most_s
    with reachable():
        size = max(store.client.zcard(keys.ENDED), store.client.zcard(keys.DEAD))
    forgotten = [0, 0, 0]
    # A step looks at the oldest, and puts those that stay behind all others.
    for _ in range(0, size + 1, call.limit):
        *numbers, more = store.run(call)
        forgotten = [have + new for have, new in zip(forgotten, numbers, strict=True)]
        if not more or time.monotonic() > until:
            break
    ended, dead, trimmed = forgotten
    return ended, dead, trimmed


def sweep_call(settings: Settings) -> SweepCall:
    """One bounded step of retention."""
    keep = settings.retention
    return SweepCall(
        keep_ended_ms=int(keep.completed_s * 1000),
        keep_dead_ms=int(keep.dead_s * 1000),
        kept_max=keep.max,
        keep_bus_ms=int(settings.bus.max_age_s * 1000),
        limit=BATCH,
    )


def periodic_lock(store: Store, job: str, period_s: float) -> bool:
    """True for one caller in each period, so that several beats do the work of one."""
    # A little less than a period: beat's own jitter must not cost every second tick.
    return bool(store.run(TickCall(job=job, verb="begin", period_ms=int(period_s * 800))))


def record_tick(store: Store, job: str) -> None:
    """Record that a periodic job ran, by the server's clock."""
    store.run(TickCall(job=job, verb="end"))
