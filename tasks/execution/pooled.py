"""Turns in a child of a pool: one after the other, of any of the pool's agents, for one wake-up.

claim -> own the agent's programs -> execute -> claim the next
"""

import logging
import time
from collections.abc import Iterator

from fleet import runtime
from fleet.errors import BrokerUnavailable, Fenced
from fleet.ledger import Claim, Failure, State
from fleet.ledger.pools import PoolClaim, PoolRuns
from fleet.system.clock import boottime
from fleet.system.process_tags import Owner, tag_owner, take_over
from fleet.worker.lease import SAFETY
from fleet.worker.pool_leases import HandedBack, PoolLeases
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
    if WORKER.shared.leaving or not _slot_is_free(leases):
        return
    began, ran = time.monotonic(), 0

    def goes_on() -> bool:
        more = ran < CHAIN_MAX and time.monotonic() - began < CHAIN_S
        return more and not WORKER.shared.leaving and not THREAD_CALLS.running

    ledger = runtime.current().ledger
    runs = PoolRuns(ledger, leases.pool, leases.worker, leases.holder, goes_on)
    found = runs.claim()
    while found is not None and _may_begin(leases, runs, found):
        ran += 1
        try:
            state, failure = turns.execute(found.claim, runs, alarm=True)
        except (Fenced, BrokerUnavailable) as error:
            logger.warning("the turn of %s goes on later: %s", found.claim.dispatch_id, error)
            return
        if state is not None:
            yield found.claim, state, failure
        found = runs.next if state is not None else None


def _may_begin(leases: PoolLeases, runs: PoolRuns, found: PoolClaim) -> bool:
    """False for one that is given back.

    It came late, its agent's programs cannot be ended, or the agent is not configured here.
    """
    claim = found.claim
    how: HandedBack = "stopped"
    if claim.agent not in runtime.current().settings.agents:
        logger.warning("%s of %s goes elsewhere: not configured", claim.dispatch_id, claim.agent)
        how = "unknown"
    # So late it may belong to another worker by now.
    elif boottime() - runs.sent < leases.ttl_s * (1 - SAFETY) and _own(found):
        return True
    try:
        leases.end(claim.dispatch_id, claim.lease, how)
    except BrokerUnavailable as error:
        logger.warning("%s goes on when its lease runs out: %s", claim.dispatch_id, error)
    return False


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
