"""Turns in a child of a pool: one after the other, of any of the pool's agents, for one wake-up.

claim -> own the agent's programs -> execute -> claim the next
"""

import logging
import time
from collections.abc import Iterator

from fleet import runtime
from fleet.errors import BrokerUnavailable, Fenced
from fleet.ledger import Claim, Failure, State, pools
from fleet.ledger.pools import PoolClaim
from fleet.system.clock import boottime
from fleet.system.process_tags import Owner, tag_owner, take_over
from fleet.worker.lease import SAFETY
from fleet.worker.pool_leases import PoolLeases
from fleet.worker.state import WORKER
from tasks.execution import turns
from tasks.limits import THREAD_CALLS

logger = logging.getLogger(__name__)

#: A child goes on without a wake-up for so long, and so many turns: then people hear of them.
CHAIN_S = 1.0
CHAIN_MAX = 200
#: Between two looks whether the worker has ended the turn of the child before this one.
SLOT_POLL_INTERVAL_S = 0.005


def run_turns(leases: PoolLeases) -> Iterator[tuple[Claim, State, Failure | None]]:
    """Run turns until there is none, or the worker leaves, or it is time to tell of them.

    Gives each turn's claim, the dispatch's state, and the failure if there was one. A turn that
    another attempt must end is left out. Raises BrokerUnavailable before the first one.
    """
    if not _slot_is_free(leases):
        return
    began, ran = time.monotonic(), 0
    while not WORKER.shared.leaving and ran < CHAIN_MAX and time.monotonic() - began < CHAIN_S:
        sent = boottime()
        try:
            found = pools.claim(
                runtime.current().ledger, leases.pool, leases.worker, leases.holder, chained=ran > 0
            )
        except BrokerUnavailable:
            if ran:
                return
            raise
        if found is None:
            return
        # One that came so late belongs to another worker by now.
        if boottime() - sent > leases.ttl_s * (1 - SAFETY) or not _own(found):
            return
        ran += 1
        try:
            state, failure = turns.execute(found.claim, runtime.current().ledger, alarm=True)
        except (Fenced, BrokerUnavailable) as error:
            logger.warning("the turn of %s goes on later: %s", found.claim.dispatch_id, error)
            return
        if state is not None:
            yield found.claim, state, failure
        if THREAD_CALLS.running:
            return


def _slot_is_free(leases: PoolLeases) -> bool:
    """Wait until the worker has ended the turn of a child that died in this one's place."""
    until = time.monotonic() + leases.ttl_s
    while WORKER.slot in WORKER.shared.turns():
        if time.monotonic() > until:
            return False
        time.sleep(SLOT_POLL_INTERVAL_S)
    return True


def _own(found: PoolClaim) -> bool:
    """Have the turn's programs known as its own; first kill those of an earlier turn."""
    settings, claim = runtime.current().settings, found.claim
    agent = claim.agent
    if settings.agents[agent].parallel > 1:
        agent = f"{agent}/{claim.dispatch_id}"
    owner = Owner.here(settings.data_dir, agent, found.epoch, claim.turn_fence)
    if not found.unclean:
        tag_owner(owner)
        return True
    if left := take_over(owner):
        logger.error(
            "%s starts no turn: processes %s of an earlier one cannot be killed; end them",
            claim.agent,
            ", ".join(map(str, left)),
        )
        return False
    return True
