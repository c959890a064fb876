"""Back at work within a quarter of a second after the broker is.

Celery's own attempts to connect come 2, 4, 6 ... up to 30 s apart, and no setting changes that. A
broker that was away for 20 s would so be found up to 10 s late, and one that comes and goes not at
all.
"""

import logging
from typing import Any

from celery import bootsteps
from celery.worker.state import maybe_shutdown

from fleet.broker.tls import refusal_of

logger = logging.getLogger(__name__)

#: Between attempts, growing by the first up to the second; an attempt costs a millisecond.
RETRY_DELAY_MIN_S = 0.05
RETRY_DELAY_MAX_S = 0.25


class FirstConnect(bootsteps.StartStopStep):
    """Worker bootstep: a worker that starts in an outage waits until the broker answers."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        """Await the broker, before Celery connects."""
        _await_broker(worker.app)


class Reconnect(bootsteps.StartStopStep):
    """Consumer bootstep: after a lost connection, waits until the broker answers."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, consumer: Any) -> None:
        """Do nothing: Celery has just connected."""

    def stop(self, consumer: Any) -> None:
        """Await the broker; called by Celery at the end, and before it connects anew.

        Only before a new connection the consumer has none.
        """
        running = consumer.blueprint.state == bootsteps.RUN  # type: ignore[attr-defined]
        if running and consumer.connection is None:
            _await_broker(consumer.app)


def _await_broker(app: Any) -> None:
    """Return when the broker answers; Celery may shut this worker down before."""
    told: list[str] = []

    def tell(error: Exception, _: float) -> None:
        if not told:
            reason = refusal_of(error) or error
            logger.warning("the broker is away: this worker waits for it (%s)", reason)
        told.append(str(error))

    with app.connection_for_read() as connection:
        connection.ensure_connection(
            errback=tell,
            interval_start=RETRY_DELAY_MIN_S,
            interval_step=RETRY_DELAY_MIN_S,
            interval_max=RETRY_DELAY_MAX_S,
            callback=maybe_shutdown,
        )
