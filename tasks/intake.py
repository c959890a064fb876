"""Intake through Celery: any producer can send events, without this package installed.

Celery(broker=URL).send_task("fleet.intake", [event], queue="intake")
"""

import logging
from typing import Any

from celery import Task, current_task, shared_task
from celery.exceptions import Reject

from fleet import runtime
from fleet.errors import BrokerUnavailable, IdempotencyConflict, Refused
from fleet.ledger import bus
from fleet.store.wakeup import INTAKE_TASK
from routing import RoutingError

logger = logging.getLogger(__name__)


class IntakeTask(Task[Any, Any]):
    """Its Request hides the arguments."""

    Request = "fleet.worker.celery_requests:IntakeRequest"


@shared_task(
    base=IntakeTask,
    name=INTAKE_TASK,
    # A producer that has a result backend may ask for the answer; see `result_backend`.
    ignore_result=False,
    # What a producer sent wrong is its failure, not this worker's: no traceback in the log.
    throws=(RoutingError, Refused, IdempotencyConflict),
)
def intake(event: Any) -> dict[str, Any]:
    """Accept one event; the answer, or the refusal, is the task's result."""
    try:
        return runtime.intake().accept(event).to_wire()
    except (RoutingError, Refused, IdempotencyConflict) as error:
        bus.alert(runtime.store(), "intake_refused", f"{current_task.request.id}: {error}")
        if not isinstance(error, RoutingError):
            # A producer without a result backend never learns of it: here it is counted.
            sender = event.get("source") if isinstance(event, dict) else ""
            carrier = str(current_task.request.id)
            bus.refused(runtime.store(), carrier, str(error), str(sender or ""))
        raise
    except BrokerUnavailable as error:
        raise Reject(str(error), requeue=True) from error
