"""Connections that Celery opens for its start and then leaves idle, closed again.

A broker counts them: of some hundred agents each with ten, a third did nothing.
"""

from typing import Any

from celery import bootsteps

from fleet.runtime import current
from fleet.store.address import wakeups_in_store


class IdleConnections(bootsteps.StartStopStep):
    """Consumer bootstep: closes what nobody uses now; a pool opens another when one is needed."""

    requires = (
        "celery.worker.consumer.events:Events",
        "celery.worker.consumer.control:Control",
        "celery.worker.consumer.tasks:Tasks",
    )

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self.enabled = wakeups_in_store(current().settings)

    def start(self, consumer: Any) -> None:
        """Called by Celery after each connect."""
        for channel in consumer.connection.transport.channels:
            _close_idle(channel)
        dispatcher = consumer.event_dispatcher
        if dispatcher is not None and dispatcher.enabled:
            for channel in dispatcher.connection.transport.channels:
                # It was tried as a consumer's, and events are only published.
                channel.client.connection_pool.disconnect(inuse_connections=False)


def _close_idle(channel: Any) -> None:
    with channel.conn_or_acquire() as client:
        client.connection_pool.disconnect(inuse_connections=False)
