"""The publisher of wake-ups to a broker that is not the store (RabbitMQ), with confirms."""

import logging
from functools import cached_property

from celery import Celery
from kombu.exceptions import OperationalError

from fleet.config.settings import Settings
from fleet.store.address import broker_url
from fleet.store.celery_app import celery_app
from fleet.store.queues import agent_queue
from fleet.store.wakeup import DISPATCH_TASK

logger = logging.getLogger(__name__)

#: A sender waits this long for the broker; the event itself is safe in the ledger already.
PUBLISH_TIMEOUT_S = 3.0


class CeleryWakeupPublisher:
    """A `WakeupPublisher`: see `fleet.store.wakeup`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, agent: str, dispatch_id: str) -> None:
        """Publish one wake-up; a failure is logged, and beat publishes another."""
        try:
            self._app.send_task(
                DISPATCH_TASK,
                [dispatch_id],
                task_id=dispatch_id,
                queue=f"agent.{agent}",
                ignore_result=True,
                retry=False,
            )
        except (OperationalError, OSError) as error:
            logger.warning(
                "the wake-up of %s failed, beat publishes another: %s", dispatch_id, error
            )

    @cached_property
    def _app(self) -> Celery:
        return celery_app(
            "fleet-bell",
            broker=broker_url(self._settings),
            task_queues=[agent_queue(self._settings, name) for name in self._settings.agents],
            broker_connection_timeout=PUBLISH_TIMEOUT_S,
            broker_transport_options={
                "confirm_publish": True,
                "confirm_timeout": PUBLISH_TIMEOUT_S,
            },
        )
