"""The alerter in a Celery worker of the maintenance queue: alerts need no API."""

from typing import TYPE_CHECKING, Any

from celery import bootsteps

from fleet import runtime

if TYPE_CHECKING:
    from fleet.ops.alerts.watch import Alerter


class AlertStep(bootsteps.StartStopStep):
    """A worker bootstep after the pool's fork, which threads do not survive."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.enabled = "maintenance" in parent.app.amqp.queues.consume_from
        self._alerter: Alerter | None = None

    def start(self, parent: Any) -> None:
        """Start the alerter."""
        from fleet.ops.alerts.watch import Alerter  # no agent's worker needs it

        self._alerter = Alerter(lambda: runtime.current().store, runtime.current().settings)
        self._alerter.start()

    def stop(self, parent: Any) -> None:
        """Stop the alerter, without waiting for its thread."""
        if self._alerter is not None:
            self._alerter.close()
