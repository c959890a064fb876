"""The heart: claim, turn, commit."""

import logging
from typing import Any

from celery import Task, current_task, shared_task
from celery.exceptions import Ignore, Reject

from fleet import context
from fleet.errors import BrokerUnavailable, Fenced
from fleet.holder import HOLDER
from fleet.lease import Hold
from fleet.ledger import State
from fleet.publish import DISPATCH_TASK
from tasks import lingering, turns
from tasks.deliver import ring
from tasks.limits import until_the_worker_says

logger = logging.getLogger(__name__)


class DispatchTask(Task[Any, Any]):
    """Its Request brings the worker's lease along, and speaks for a child that was killed."""

    Request = "fleet.requests:DispatchRequest"


@shared_task(base=DispatchTask, name=DISPATCH_TASK)
def dispatch(dispatch_id: str) -> None:
    """Run the agent's next dispatch: `dispatch_id` rang, the ledger decides which is next."""
    hold, ledger = Hold(**current_task.request.get("hold")), context.ledger()
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
        with until_the_worker_says(), turns.traced(claim) as span:
            state = turns.commit(claim, ledger, turns.run(claim, ledger))
            span.note(state=state or "refused")
    except Fenced as error:
        raise Ignore from error
    except BrokerUnavailable as error:
        raise Reject(str(error), requeue=True) from error
    finally:
        # What a turn has left behind would be in the way of the next one, perhaps for ever.
        HOLDER.page.spent = lingering.running() > 0
    if state == State.ANNOUNCING:
        ring(dispatch.app, claim.dispatch_id)
    logger.info("dispatch %s attempt %d: %s", claim.dispatch_id, claim.attempt, state)
