"""The alerter in a Celery worker of the maintenance queue, so that alerts need no API."""

from typing import Any

from celery import bootsteps

from fleet import runtime
from fleet.ops.alerts.watch import Alerter


class AlertStep(bootsteps.StartStopStep):
    """Worker bootstep: after the pool has forked, because a thread does not survive a fork."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.enabled = "maintenance" in parent.app.amqp.queues.consume_from
        self._alerter: Alerter | None = None

    def start(self, parent: Any) -> None:
        """Begin to look."""
        self._alerter = Alerter(lambda: runtime.current().store, runtime.current().settings)
        self._alerter.start()

    def stop(self, parent: Any) -> None:
        """End within moments."""
        if self._alerter is not None:
            self._alerter.close()
