"""No delayed delivery by RabbitMQ, which the fleet does not use.

What waits for a time waits in the ledger. Celery prepares it all the same where queues are quorum
queues, and warns for each queue that its exchange is not one of topics.
"""

from typing import Any

from celery import bootsteps
from celery.worker.consumer import Consumer

_STEP = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


class NoDelayedDelivery(bootsteps.Step):
    """Worker bootstep: takes Celery's step out of the consumer, which is made after this one."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        steps = Consumer.Blueprint.default_steps
        if _STEP in steps:
            steps.remove(_STEP)
