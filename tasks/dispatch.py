"""The heart: claim, turn, commit."""

import logging
from typing import Any

from celery import Task, current_task, shared_task
from celery.exceptions import Ignore, Reject

from fleet import runtime
from fleet.errors import BrokerUnavailable, Fenced
from fleet.ledger import State
from fleet.store.wakeup import DISPATCH_TASK
from fleet.worker.lease import LeaseToken
from fleet.worker.state import WORKER
from tasks.deliver import ring
from tasks.execution import preload, turns
from tasks.limits import sigterm_ignored
from tasks.tools import abandoned

logger = logging.getLogger(__name__)


class DispatchTask(Task[Any, Any]):
    """Its Request brings the worker's lease along, and speaks for a child that was killed."""

    Request = "fleet.worker.celery_requests:DispatchRequest"

    @staticmethod
    def preload() -> None:
        """Import LiteLLM in the worker's parent, for all the children that it forks."""
        preload.preload()


@shared_task(base=DispatchTask, name=DISPATCH_TASK)
def dispatch(dispatch_id: str) -> None:
    """Run the agent's next dispatch: `dispatch_id` rang, the ledger decides which is next."""
    hold, ledger = LeaseToken(**current_task.request.get("hold")), runtime.current().ledger
    if not turns.alone(hold.agent, hold.epoch, hold.fence):
        raise Reject("something of an earlier turn may still run", requeue=True)
    try:
        claim = ledger.claim(hold.agent, hold.fence, hold.holder)
    except Fenced as error:
        logger.warning("not run: %s", error)
        return
    except BrokerUnavailable as error:
        # Not a failure of the event: an exception would make Celery acknowledge it.
        raise Reject(str(error), requeue=True) from error
    if claim is None:
        logger.info("nothing to do for %s", dispatch_id)
        return
    try:
        with sigterm_ignored(), turns.traced(claim) as span:
            state = turns.commit(claim, ledger, turns.run(claim, ledger))
            span.set(state=state or "refused")
    except Fenced as error:
        raise Ignore from error
    except BrokerUnavailable as error:
        raise Reject(str(error), requeue=True) from error
    finally:
        # What a turn has left behind would be in the way of the next one, perhaps for ever.
        WORKER.shared.retire_child = abandoned.running() > 0
    if state == State.ANNOUNCING:
        ring(dispatch.app, claim.dispatch_id)
    logger.info("dispatch %s attempt %d: %s", claim.dispatch_id, claim.attempt, state)
