"""The periodic jobs. Any number may run at once: each is bounded and repeatable.

They send no task events: more than one a second, they would bury the dispatches in Flower.
"""

from celery import shared_task

from fleet import runtime
from fleet.delivery.delivery_worker import due
from fleet.ledger.maintenance import (
    RECLAIM_PERIOD_S,
    SWEEP_PERIOD_S,
    periodic_lock,
    reclaim_all,
    record_tick,
    sweep_all,
)
from tasks.deliver import request_delivery


@shared_task(name="fleet.reclaim", send_events=False)
def reclaim() -> None:
    """Reclaim due retries, passed deadlines, lost wake-ups, vanished holders, open deliveries."""
    if periodic_lock(runtime.current().store, "reclaim", RECLAIM_PERIOD_S):
        reclaim_all(runtime.current().ledger, runtime.current().settings)
        for name, target in due(runtime.current().store, runtime.current().settings):
            request_delivery(reclaim.app, name, target)


@shared_task(name="fleet.health", send_events=False)
def health() -> None:
    """Record that beat, broker and a maintenance worker are alive."""
    record_tick(runtime.current().store, "health")


@shared_task(name="fleet.sweep", send_events=False)
def sweep() -> None:
    """Delete what has passed its retention."""
    if periodic_lock(runtime.current().store, "sweep", SWEEP_PERIOD_S):
        sweep_all(runtime.current().store, runtime.current().settings)
        record_tick(runtime.current().store, "sweep")
