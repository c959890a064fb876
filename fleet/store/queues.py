"""The queues, declared as Celery would on demand: a producer without this app agrees."""

from typing import Any

from kombu import Exchange, Queue

from fleet.config.settings import Settings
from fleet.store.address import wakeups_in_store

#: The queues that any worker may serve.
SHARED_QUEUES = ("intake", "delivery", "maintenance")

#: On RabbitMQ: replicated and fsynced. A wake-up that kills its worker is dropped at last; the
#: ledger keeps the dispatch. No single active consumer: a stopped consumer, or a vanished host,
#: would stay active until its heartbeats are missed, minutes after its lease went to another.
_QUORUM: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": 3}


def wakeup_queue(settings: Settings, name: str) -> Queue:
    """The queue of the wake-ups of one agent, `agent.NAME`, or of one pool, `pool.NAME`.

    In the store it is `no_ack`: a popped wake-up is gone, and the ledger pushes another one when it
    came to nothing. So there is nothing to redeliver, and one command a wake-up instead of nine.
    """
    if wakeups_in_store(settings):
        return _queue(name, no_ack=True)
    return _queue(name, queue_arguments=_QUORUM)


def shared_queue(name: str) -> Queue:
    """A queue that any worker may serve."""
    return _queue(name)


def _queue(name: str, **options: Any) -> Queue:
    return Queue(name, Exchange(name, type="direct"), routing_key=name, **options)
