"""Claims in a pool: the next runnable dispatch of any of its agents, under a lease of its own."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleet.ledger.protocol import NOTHING, Claim, Cost, Ending, LeaseToken, Runs
from fleet.ledger.states import State
from fleet.ledger.valkey import LOSSES_MAX, ValkeyLedger, read_claim
from fleet.store.lease_calls import PoolClaimCall, PoolNextCall
from fleet.system.clock import boottime


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolClaim:
    """A claimed dispatch, and what its process must know of the agent's earlier turns."""

    claim: Claim
    epoch: str
    unclean: bool  #: programs of an earlier turn of the agent may still run


class PoolRuns(Runs):
    """The ledger as a child of a pool uses it, which goes from turn to turn.

    A commit claims the next dispatch in the same step, where `goes_on` says so; `next` has it.
    """

    def __init__(
        self,
        ledger: ValkeyLedger,
        pool: str,
        worker: str,
        holder: str,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """`worker` is the name of the worker's process; `holder` its `host:pid`, for people."""
        self.next: PoolClaim | None = None
        #: When the claim was sent, by the clock since boot: its lease lasts from then at least.
        self.sent = 0.0
        self._ledger, self._pool, self._worker, self._holder = ledger, pool, worker, holder
        self._goes_on = goes_on
        self._ending: tuple[str, PoolNextCall] | None = None

    def claim(self, *, chained: bool = False) -> PoolClaim | None:
        """The pool's next dispatch, or None when nothing is runnable.

        `chained`: the caller goes on without a wake-up, so one is taken off the queue. A claim that
        cannot be read is set aside. Raises BrokerUnavailable.
        """
        lease, self.sent = uuid.uuid4().hex, boottime()
        call = PoolClaimCall(lease=lease, chained=1 if chained else 0, **self._options())
        return self._read(lease, self._ledger.store.run(call))

    def step(
        self,
        claim: Claim,
        key: str,
        entry: str,
        cost: Cost = NOTHING,
        verification: str = "",
        reason: str = "",
    ) -> str:
        """Journal a finished step and count its cost; answers why to cancel, or an empty string."""
        return self._ledger.step(claim, key, entry, cost, verification, reason)

    def steps(self, dispatch_id: str) -> dict[str, str]:
        """The journal of a dispatch: step key -> entry."""
        return self._ledger.steps(dispatch_id)

    def commit(self, claim: Claim, ending: Ending) -> State:
        """End the attempt, and claim the next; answers the state the dispatch is in now.

        Repeated for the same claim it is the same call, so nothing is claimed twice.
        """
        if self._ending is None or self._ending[0] != claim.lease:
            self.next, self._ending = None, None
            if not self._goes_on():
                return self._ledger.commit(claim, ending)
            self._ending = claim.lease, self._next_call(claim, ending)
        call, self.sent = self._ending[1], boottime()
        ended, found = self._ledger.store.run(call)
        state = self._ledger.read_end(claim, ended)
        self.next = self._read(call.next_lease, found)
        return state

    def _next_call(self, claim: Claim, ending: Ending) -> PoolNextCall:
        end = self._ledger.commit_call(claim, ending)
        return PoolNextCall(
            **self._options(),
            next_lease=uuid.uuid4().hex,
            dispatch_id=claim.dispatch_id,
            agent=claim.agent,
            fence=claim.fence,
            lease=claim.lease,
            attempt=claim.attempt,
            ending=end.ending,
        )

    def _options(self) -> dict[str, Any]:
        settings = self._ledger.settings
        return {
            "pool": self._pool,
            "worker": self._worker,
            "holder": self._holder,
            "ttl_ms": int(settings.lease_ttl_s * 1000),
            "max_share": settings.pools[self._pool].max_share,
            "keep_ended_ms": int(settings.retention.completed_s * 1000),
            "history_max": settings.sessions.history_messages,
            "ageing_ms": int(settings.ageing_s * 1000),
            "losses_max": LOSSES_MAX,
            "keep_dead_ms": int(settings.retention.dead_s * 1000),
        }

    def _read(self, lease: str, answer: list[Any]) -> PoolClaim | None:
        if not answer:
            return None
        agent, epoch, unclean, *found = answer
        right = LeaseToken(
            agent=agent, fence=int(found[2]), lease=lease, holder=self._holder, epoch=epoch
        )
        try:
            return PoolClaim(claim=read_claim(right, *found), epoch=epoch, unclean=unclean != "0")
        except (KeyError, TypeError, ValueError) as error:
            self._ledger.set_aside(right, ["claimed", *found], error)
            return None
