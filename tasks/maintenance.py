"""The periodic jobs. Any number may run at once: each is bounded and repeatable."""

from celery import shared_task

from fleet import context
from fleet.delivery.courier import due
from fleet.maintenance import (
    RECLAIM_PERIOD_S,
    SWEEP_PERIOD_S,
    my_turn,
    reclaim_all,
    record_tick,
    sweep_all,
    watch_memory,
)
from tasks.deliver import ring


@shared_task(name="fleet.reclaim")
def reclaim() -> None:
    """Due retries, passed deadlines, lost doorbells, vanished holders, open deliveries."""
    if my_turn(context.store(), "reclaim", RECLAIM_PERIOD_S):
        reclaim_all(context.ledger(), context.settings())
        for dispatch_id in due(context.store(), context.settings()):
            ring(reclaim.app, dispatch_id)


@shared_task(name="fleet.health")
def health() -> None:
    """The sign that beat, broker and a maintenance worker are alive, and the store's memory."""
    watch_memory(context.store(), context.settings())
    record_tick(context.store(), "health")


@shared_task(name="fleet.sweep")
def sweep() -> None:
    """Retention."""
    if my_turn(context.store(), "sweep", SWEEP_PERIOD_S):
        sweep_all(context.store(), context.settings())
        record_tick(context.store(), "sweep")
