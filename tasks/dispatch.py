"""The task of a wake-up: claim the agent's next dispatch, run its turn, have the outcome delivered.

A wake-up names a dispatch, but only wakes the worker: the ledger decides what runs next.
"""

import json
import logging
from collections.abc import Collection
from typing import Any

from celery import Task, current_task, shared_task
from celery.exceptions import Ignore, Reject, Retry

from fleet import runtime
from fleet.config.agents import AgentConfig
from fleet.errors import BrokerUnavailable, Fenced
from fleet.ledger import Claim, Failure, LeaseToken, State
from fleet.store.wakeup import DISPATCH_TASK
from fleet.worker.pool_leases import PoolLeases
from fleet.worker.state import WORKER
from fleet.worker.task_events import shown
from tasks.deliver import request_delivery
from tasks.execution import pooled, preload, turns
from tasks.limits import THREAD_CALLS
from tasks.model import preflight, prices

logger = logging.getLogger(__name__)


class DispatchTask(Task[Any, Any]):
    """A task whose Request carries the worker's lease, and reports for a killed child."""

    Request = "fleet.worker.celery_requests:DispatchRequest"
    #: A child of a pool tells of many turns with one message.
    resultrepr_maxsize = 1 << 20

    @staticmethod
    def preload(agents: Collection[AgentConfig]) -> None:
        """Import what turns need in the worker's parent, for all the children that it forks."""
        preload.preload(agents)

    @staticmethod
    def unpriced(name: str, agent: AgentConfig) -> list[str]:
        """A sentence for each of its models that a budget in dollars cannot count."""
        return [prices.fault(name, model) for model in prices.unpriced(agent)]

    @staticmethod
    def uncallable(name: str, agent: AgentConfig) -> list[str]:
        """A sentence for each of its models that cannot be called; nothing is sent for it."""
        return list(preflight.obstacles({name: agent}, connect=False))


class DispatchFailed(Exception):
    """Shows an attempt as failed to those who follow Celery's events. The ledger has its end.

    Holds stage and reason, and what `shown` has; no content.
    """


@shared_task(base=DispatchTask, name=DISPATCH_TASK, throws=(DispatchFailed,))
def dispatch(dispatch_id: str) -> dict[str, str] | str:
    """Run the agent's next dispatch, or those of a pool; what Flower shows of them."""
    if WORKER.pool is not None:
        return _pooled(WORKER.pool, dispatch_id)
    claim = _claim(LeaseToken(**current_task.request.get("lease")), dispatch_id)
    if claim is None:
        raise Ignore  # not a success: the dispatch it names may have failed
    state, failure = _execute(claim)
    if state == State.ANNOUNCING:
        request_delivery(dispatch.app, claim.dispatch_id)
    logger.info("dispatch %s attempt %d: %s", claim.dispatch_id, claim.attempt, state)
    if state is None:
        raise Ignore  # a newer holder runs it, and tells
    told = shown(claim.dispatch_id, claim.agent, claim.event.session, state=str(state))
    if failure is None:
        return told
    fault = DispatchFailed(f"{failure.stage}: {failure.reason}", told)
    if state in (State.DEAD, State.ANNOUNCING):
        raise fault
    raise Retry(str(failure.stage), fault)


def _pooled(leases: PoolLeases, woken_by: str) -> str:
    """Run turns of a pool; what Flower shows of them, as JSON.

    Raises Ignore where there was none, and Reject where none can be claimed now.
    """
    told = []
    try:
        for claim, state, failure in pooled.run_turns(leases):
            if state == State.ANNOUNCING:
                request_delivery(dispatch.app, claim.dispatch_id)
            logger.info("dispatch %s attempt %d: %s", claim.dispatch_id, claim.attempt, state)
            more = {"failure": f"{failure.stage}: {failure.reason}"} if failure else {}
            told.append(
                shown(claim.dispatch_id, claim.agent, claim.event.session, state=state, **more)
            )
    except BrokerUnavailable as error:
        raise Reject(str(error), requeue=True) from error
    finally:
        WORKER.shared.retire(WORKER.slot, THREAD_CALLS.running > 0)
    if not told:
        logger.info("nothing to do for %s", woken_by)
        raise Ignore
    return json.dumps(told)


def _claim(lease: LeaseToken, woken_by: str) -> Claim | None:
    """The agent's next dispatch. Raises Reject where it cannot be claimed now."""
    if WORKER.shared.leaving:
        raise Reject("this worker ends, and its successor runs the dispatch", requeue=True)
    if not turns.ensure_alone(lease.agent, lease.epoch, lease.fence):
        raise Reject("something of an earlier turn may still run", requeue=True)
    try:
        claim = runtime.current().ledger.claim(lease)
    except Fenced as error:
        logger.warning("not run: %s", error)
        return None
    except BrokerUnavailable as error:
        # Not a failure of the event: an exception would make Celery acknowledge it.
        raise Reject(str(error), requeue=True) from error
    if claim is None:
        logger.info("nothing to do for %s", woken_by)
    return claim


def _execute(claim: Claim) -> tuple[State | None, Failure | None]:
    """The state after the turn, and its failure.

    Raises Ignore or Reject where another attempt must end it.
    """
    try:
        return turns.execute(claim, runtime.current().ledger)
    except Fenced as error:
        raise Ignore from error
    except BrokerUnavailable as error:
        raise Reject(str(error), requeue=True) from error
    finally:
        # Calls that the turn has abandoned would be in the way of the next one, perhaps for ever.
        WORKER.shared.retire(WORKER.slot, THREAD_CALLS.running > 0)
