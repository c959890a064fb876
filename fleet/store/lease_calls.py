"""The calls of the scripts of leases: of agents, and of turns in a pool.

The meaning of each argument is in its legend.
"""

from typing import Any, Literal

from fleet.store.calls import EndingArgs, Flag
from fleet.store.script import Record, ScriptCall


class LeaseCall(ScriptCall[list[Any]]):
    """Acquire an agent's lease."""

    agent: str
    ttl_ms: int
    holder: str
    client: str
    run: str
    lease: str
    process: str
    stolen: str


class RenewCall(ScriptCall[tuple[int, str]]):
    """Renew a lease."""

    agent: str
    fence: int
    lease: str
    ttl_ms: int
    client: str
    run: str
    process: str
    holder: str
    busy: Flag
    consuming: Flag
    beat_silence_ms: int


class ReleaseCall(ScriptCall[int]):
    """Release a lease."""

    agent: str
    fence: int
    lease: str


class PoolAgentArgs(Record):
    """An agent of a pool; see `pool_agents.lua`."""

    name: str
    parallel: int
    weight: float


class PoolAgentsCall(ScriptCall[int]):
    """Record the agents that a pool runs."""

    pool: str
    agents: list[PoolAgentArgs]


class PoolClaimCall(ScriptCall[list[Any]]):
    """Claim the next runnable dispatch of any agent of a pool."""

    pool: str
    worker: str
    holder: str
    lease: str
    ttl_ms: int
    max_share: float
    chained: Flag
    keep_ended_ms: int
    history_max: int
    ageing_ms: int
    losses_max: int
    keep_dead_ms: int


class PoolNextCall(ScriptCall[tuple[list[str], list[Any]]]):
    """End a turn in a pool and claim the next one."""

    pool: str
    worker: str
    holder: str
    ttl_ms: int
    max_share: float
    keep_ended_ms: int
    history_max: int
    ageing_ms: int
    losses_max: int
    keep_dead_ms: int
    next_lease: str
    dispatch_id: str
    agent: str
    fence: int
    lease: str
    attempt: int
    ending: EndingArgs


class TurnArgs(Record):
    """A turn that a pool's worker runs; see `pool_renew.lua`."""

    dispatch_id: str
    lease: str


class PoolRenewCall(ScriptCall[tuple[list[str], list[str], list[str]]]):
    """Renew the leases of all turns of a pool's worker."""

    pool: str
    worker: str
    holder: str
    processes: int
    idle: int
    ttl_ms: int
    beat_silence_ms: int
    losses_max: int
    keep_dead_ms: int
    limit: int
    turns: list[TurnArgs]


class PoolTurnCall(ScriptCall[str]):
    """Record that the process of a turn in a pool is dead."""

    dispatch_id: str
    lease: str
    how: Literal["lost", "stopped", "unknown"]
    losses_max: int
    keep_dead_ms: int


class PoolLeaveCall(ScriptCall[int]):
    """Record that a worker of a pool has ended, with all its turns."""

    pool: str
    worker: str
    losses_max: int
    keep_dead_ms: int
