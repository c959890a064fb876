"""The leases of the turns that one pool's worker runs.

A worker of a pool holds no agent. Each turn has a lease of its own (fence, random name, end), which
the script that claims its dispatch begins. The worker renews all of them in one call, at a third of
their time to live, and stops its processes when it cannot (see `fleet.worker.lease`). A turn whose
lease runs out has lost its worker; whoever renews next counts the loss, and the dispatch is its
agent's next one.

A dead worker need not be waited for where its death is certain: a row in the store names its
process, and another worker of the same machine asks the kernel.
"""

import os
import socket
import threading
from typing import Literal

from fleet.config.settings import Settings
from fleet.ledger.valkey import LOSSES_MAX
from fleet.store import Store
from fleet.store.connection import reachable
from fleet.store.lease_calls import (
    PoolAgentArgs,
    PoolAgentsCall,
    PoolLeaveCall,
    PoolRenewCall,
    PoolTurnCall,
    TurnArgs,
)
from fleet.store.wakeup import WakeupPublisher
from fleet.system import process_identity
from fleet.system.clock import boottime
from fleet.worker.lease import BEAT_SILENCE_MS, SAFETY
from fleet.worker.state import RunningTurn, SharedLeaseState

#: Why a worker gives a turn back; see `pool_turn.lua`.
HandedBack = Literal["stopped", "unknown"]
#: Agents recorded in one call, so that no script holds the server for long.
AGENTS_PER_CALL = 200
#: Overdue turns and rested agents that one renewal looks after.
_LIMIT = 200


class PoolLeases:
    """One worker's place in a pool. Safe to call from any thread of its process."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        pool: str,
        shared: SharedLeaseState,
        notify: WakeupPublisher | None = None,
    ) -> None:
        self.pool = pool
        self.ttl_s = settings.lease_ttl_s
        self.shared = shared
        self.holder = f"{socket.gethostname()}:{os.getpid()}"
        self.worker = process_identity.identity()
        self.processes = settings.pools[pool].processes
        self.store = store
        self._settings = settings
        self._notify = notify
        self._keep_dead_ms = int(settings.retention.dead_s * 1000)
        self._others: list[str] = []
        self._lock = threading.Lock()

    def record_agents(self) -> None:
        """Record the pool's agents; those with work come into its line.

        Raises BrokerUnavailable.
        """
        names = self._settings.pooled(self.pool)
        agents = self._settings.agents
        for first in range(0, len(names), AGENTS_PER_CALL):
            rows = [
                PoolAgentArgs(name=name, parallel=agents[name].parallel, weight=agents[name].weight)
                for name in names[first : first + AGENTS_PER_CALL]
            ]
            self.store.run(PoolAgentsCall(pool=self.pool, agents=rows))

    def renew(self, idle: int) -> list[RunningTurn]:
        """Renew the leases of all turns; answers those that are not this worker's any more.

        `idle` processes get wake-ups where there is work. Raises BrokerUnavailable.
        """
        with self._lock:
            sent, turns = boottime(), self.shared.turns().values()
            call = PoolRenewCall(
                pool=self.pool,
                worker=self.worker,
                holder=self.holder,
                processes=self.processes,
                idle=idle,
                ttl_ms=int(self.ttl_s * 1000),
                beat_silence_ms=BEAT_SILENCE_MS,
                losses_max=LOSSES_MAX,
                keep_dead_ms=self._keep_dead_ms,
                limit=_LIMIT,
                turns=[TurnArgs(dispatch_id=one.dispatch_id, lease=one.lease) for one in turns],
            )
            lost, woken, others = self.store.run(call)
            self.shared.valid_until = sent + self.ttl_s * (1 - SAFETY)
        if self._notify:
            for dispatch_id in woken:
                self._notify(self.pool, dispatch_id)
        self._others = others
        with reachable():
            self.store.clock.look()
        return [one for one in turns if one.dispatch_id in lost]

    def end_dead_workers(self) -> bool:
        """Record the ends of the pool's other workers on this machine; True when there was one.

        Raises BrokerUnavailable.
        """
        dead = [name for name in self._others if process_identity.is_gone(name)]
        for name in dead:
            self._end_worker(name)
            self._others.remove(name)
        return bool(dead)

    def end(self, dispatch_id: str, lease: str, how: Literal["lost", "stopped", "unknown"]) -> str:
        """Record that no process runs a turn; the dispatch's state, '' for no turn of that lease.

        Its process was lost, or its worker stopped it, or the worker does not know its agent.
        Raises BrokerUnavailable.
        """
        call = PoolTurnCall(
            dispatch_id=dispatch_id,
            lease=lease,
            how=how,
            losses_max=LOSSES_MAX,
            keep_dead_ms=self._keep_dead_ms,
        )
        return self.store.run(call)

    def leave(self) -> None:
        """Record that this worker ends, and has ended its turns. Raises BrokerUnavailable."""
        self._end_worker(self.worker)

    def _end_worker(self, worker: str) -> None:
        call = PoolLeaveCall(
            pool=self.pool, worker=worker, losses_max=LOSSES_MAX, keep_dead_ms=self._keep_dead_ms
        )
        self.store.run(call)
