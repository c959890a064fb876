"""The state of each agent: who runs its turns, what runs, and what waits."""

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.ledger import pool_workers
from fleet.ledger.states import State
from fleet.store import Store, keys
from fleet.store.connection import reachable


def rows(store: Store, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Per agent: who holds it and since when, what runs, how much waits, whether it is paused.

    `queued` counts what waits for its session as well, like every other count of that state.

    `consuming` is what its worker has said `reported_s` ago: that it takes work from its queue. An
    agent of a pool is held by the pool's newest worker, and may have several turns `running`.
    """
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(keys.agent(name))
            pipe.hgetall(keys.lease(name))
            pipe.hget(keys.COUNTS, f"{name}|{State.QUEUED}")
            pipe.hget(keys.POOLS, name)
            pipe.srandmember(keys.running(name), 1)
            pipe.scard(keys.running(name))
        found = pipe.execute() if names else []
        now_ms = store.clock.now_ms()
    pooled = {str(row).rpartition(" ")[2] for row in found[3::6] if row}
    workers = {name: pool_workers.living(store, name, now_ms) for name in pooled}
    shown: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(names):
        state, lease, queued, in_pool, turns, running = found[6 * place : 6 * place + 6]
        pool = str(in_pool).rpartition(" ")[2] if in_pool else None
        if float(lease.get("until_ms", now_ms + 1)) <= now_ms:
            lease = {}
        if pool is not None and not lease:
            lease = pool_workers.lease_of(workers[pool])
        held = (now_ms - float(lease["since_ms"])) / 1000 if lease.get("since_ms") else 0.0
        at_ms = lease.get("reported_ms")
        shown[name] = {
            "online": bool(lease),
            "consuming": lease.get("consuming") == "1",
            "reported_s": round(max(0.0, (now_ms - float(at_ms)) / 1000), 3) if at_ms else None,
            "holder": lease.get("holder"),
            "held_s": round(max(0.0, held), 3),
            "fence": int(lease.get("fence", 0)),
            "queued": int(queued or 0),
            "active": state.get("active") or next(iter(turns or ()), None),
            "running": int(running) or int("active" in state),
            "pool": pool,
            "paused": "paused" in state,
            "tier": int(state.get("tier", 1)),
            **_hold(state, now_ms),
        }
    return shown


def _hold(state: Mapping[str, str], now_ms: float) -> dict[str, Any]:
    """How long the agent takes no work, and what has stopped it: stage and reason."""
    left_s = round(max(0.0, (float(state.get("hold_ms", 0)) - now_ms) / 1000), 3)
    return {
        "hold_s": left_s,
        "hold_stage": state.get("hold_stage") if left_s else None,
        "hold_reason": state.get("hold_reason") if left_s else None,
    }
