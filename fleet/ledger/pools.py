"""Claims in a pool: the next runnable dispatch of any of its agents, under a lease of its own."""

import uuid
from dataclasses import dataclass

from fleet.ledger.protocol import Claim, LeaseToken
from fleet.ledger.valkey import LOSSES_MAX, ValkeyLedger, read_claim
from fleet.store.lease_calls import PoolClaimCall


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolClaim:
    """A claimed dispatch, and what its process must know of the agent's earlier turns."""

    claim: Claim
    epoch: str
    unclean: bool  #: programs of an earlier turn of the agent may still run


def claim(
    ledger: ValkeyLedger, pool: str, worker: str, holder: str, *, chained: bool
) -> PoolClaim | None:
    """The pool's next dispatch, or None when nothing is runnable.

    `chained`: the caller has just ended a turn and goes on without a wake-up, so one is taken off
    the queue. A claim that cannot be read is set aside. Raises BrokerUnavailable.
    """
    settings = ledger.settings
    call = PoolClaimCall(
        pool=pool,
        worker=worker,
        holder=holder,
        lease=uuid.uuid4().hex,
        ttl_ms=int(settings.lease_ttl_s * 1000),
        max_share=settings.pools[pool].max_share,
        chained=1 if chained else 0,
        keep_ended_ms=int(settings.retention.completed_s * 1000),
        history_max=settings.sessions.history_messages,
        ageing_ms=int(settings.ageing_s * 1000),
        losses_max=LOSSES_MAX,
        keep_dead_ms=int(settings.retention.dead_s * 1000),
    )
    answer = ledger.store.run(call)
    if not answer:
        return None
    agent, epoch, unclean, *found = answer
    right = LeaseToken(
        agent=agent, fence=int(found[2]), lease=call.lease, holder=holder, epoch=epoch
    )
    try:
        return PoolClaim(claim=read_claim(right, *found), epoch=epoch, unclean=unclean != "0")
    except (KeyError, TypeError, ValueError) as error:
        ledger.set_aside(right, ["claimed", *found], error)
        return None
