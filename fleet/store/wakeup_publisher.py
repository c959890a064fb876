"""The publisher of wake-ups to a broker that is not the store (RabbitMQ), with confirms."""

import logging
import time
from functools import cached_property

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from fleet.config.settings import Settings
from fleet.formats.redaction import mask_url
from fleet.store.address import broker_url
from fleet.store.celery_app import celery_app
from fleet.store.queues import wakeup_queue
from fleet.store.wakeup import DISPATCH_TASK

logger = logging.getLogger(__name__)

#: A sender waits this long for the broker; the event itself is safe in the ledger already.
PUBLISH_TIMEOUT_S = 3.0
#: Nobody waits again for a broker that has just failed; beat publishes what was left out.
PAUSE_S = 5.0
#: Shorter than a probe's own patience.
LOOK_TIMEOUT_S = 0.7


class CeleryWakeupPublisher:
    """A `WakeupPublisher`: see `fleet.store.wakeup`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # A holder renews its lease and publishes in one thread, so this is a part of its time.
        self._timeout_s = min(PUBLISH_TIMEOUT_S, settings.lease_ttl_s / 6)
        self._next_try = 0.0
        self._looked, self._fault = 0.0, ""

    def __call__(self, agent: str, dispatch_id: str) -> None:
        """Publish one wake-up in bounded time; beat publishes another for one that failed."""
        self._publish(self._settings.queue(agent), dispatch_id)

    def wake_pool(self, pool: str, dispatch_id: str) -> None:
        """The same for a pool."""
        self._publish(f"pool.{pool}", dispatch_id)

    def _publish(self, queue: str, dispatch_id: str) -> None:
        if time.monotonic() < self._next_try:
            return
        try:
            self._app.send_task(
                DISPATCH_TASK,
                [dispatch_id],
                task_id=dispatch_id,
                queue=queue,
                ignore_result=True,
                retry=False,
            )
        except (OperationalError, OSError) as error:
            self._next_try = time.monotonic() + PAUSE_S
            # A confirm that comes too late must not be read as another wake-up's.
            self.__dict__.pop("_app", None)
            logger.warning(
                "the wake-up of %s failed, beat publishes another: %s", dispatch_id, error
            )

    def fault(self) -> str:
        """Why the broker takes no wake-ups, as a sentence; empty when it answers.

        Asked at most once in PAUSE_S. Never raises.
        """
        if time.monotonic() < self._looked + PAUSE_S:
            return self._fault
        url = broker_url(self._settings)
        options = _bounded(LOOK_TIMEOUT_S)
        try:
            with Connection(
                url, connect_timeout=LOOK_TIMEOUT_S, transport_options=options
            ) as broker:
                _ = broker.default_channel
            self._fault = ""
        except (OperationalError, OSError) as error:
            self._fault = f"The broker at {mask_url(url)} does not answer: {error}"
        self._looked = time.monotonic()
        return self._fault

    @cached_property
    def _app(self) -> Celery:
        return celery_app(
            "fleet-bell",
            broker=broker_url(self._settings),
            task_queues=[wakeup_queue(self._settings, name) for name in self._settings.workers],
            broker_connection_timeout=self._timeout_s,
            broker_transport_options={"confirm_publish": True, **_bounded(self._timeout_s)},
        )


def _bounded(timeout_s: float) -> dict[str, float]:
    """Transport options by which no step waits longer; one that fails is not repeated."""
    return {"read_timeout": timeout_s, "write_timeout": timeout_s, "max_retries": 0}
