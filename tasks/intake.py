"""Intake through Celery: any producer sends events, without this package installed.

Celery(broker=URL).send_task("fleet.intake", [event], queue="intake")
"""

import logging
from typing import Any

from celery import Task, current_task, shared_task
from celery.exceptions import Reject

from fleet import runtime
from fleet.errors import BrokerUnavailable, IdempotencyConflict, Refused
from fleet.ledger import bus, refusals
from fleet.store.wakeup import INTAKE_TASK
from routing import InvalidEvent, RoutingError
from routing.event import NAME_CHARS_MAX, SOURCE_DEFAULT

logger = logging.getLogger(__name__)


class IntakeTask(Task[Any, Any]):
    """A task whose Request hides the arguments."""

    Request = "fleet.worker.celery_requests:IntakeRequest"


@shared_task(
    base=IntakeTask,
    name=INTAKE_TASK,
    # A producer that has a result backend may read the answer; see `result_backend`.
    ignore_result=False,
    # A wrong event is its producer's fault, not this worker's: no traceback in the log.
    throws=(RoutingError, Refused, IdempotencyConflict),
)
def intake(event: Any) -> dict[str, Any]:
    """Accept one event; the task's result is the answer or the refusal."""
    try:
        if ambiguous := current_task.request.get("ambiguous"):
            raise InvalidEvent(ambiguous)
        # Known before it is accepted: the same message may come again.
        return runtime.current().intake.accept(event, new_id=current_task.request.id).to_wire()
    except (RoutingError, Refused, IdempotencyConflict) as error:
        refusals.count(runtime.current().store)
        # A producer without a result backend never sees the refusal: count it here.
        sender, agent = _ends(event)
        carrier = str(current_task.request.id)
        bus.refused(runtime.current().store, carrier, str(error), sender, agent)
        raise
    except BrokerUnavailable as error:
        raise Reject(str(error), requeue=True) from error


def _ends(event: Any) -> tuple[str, str]:
    """The sender and the agent that a refused event names; empty where it is not well-formed."""
    if not isinstance(event, dict):
        return "", ""
    sender, data = event.get("source", SOURCE_DEFAULT), event.get("data")
    to = event.get("to", data.get("to") if isinstance(data, dict) else None)
    if isinstance(to, list) and len(to) == 1:
        to = to[0]
    agent = to if isinstance(to, str) and to in runtime.current().settings.agents else ""
    return sender[:NAME_CHARS_MAX] if isinstance(sender, str) else "", agent
