"""Celery's task events, which Flower follows, sent a few times a second instead of one by one.

Celery publishes each event as soon as its loop turns: before the child gets its task, and at more
than half of the worker's CPU (0.3 ms each). People read these events, so they may come later.
"""

from typing import Any

from celery import bootsteps

#: How much later Flower sees a task move.
DELAY_S = 0.25
#: A full buffer is sent at once; three events a task, about 300 bytes each.
BUFFER_MAX = 300


class BatchedEvents(bootsteps.StartStopStep):
    """Consumer bootstep: sends buffered task events at most every `DELAY_S`."""

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, consumer: Any) -> None:
        """Batch a new dispatcher's events; called by Celery after each connect."""
        dispatcher = consumer.event_dispatcher
        if dispatcher is None or dispatcher.on_send_buffered is None:
            return
        waiting = False

        def flush() -> None:
            nonlocal waiting
            waiting = False
            dispatcher.flush()

        def on_buffered() -> None:
            nonlocal waiting
            if not waiting:
                waiting = True
                consumer.timer.call_after(DELAY_S, flush)

        dispatcher.buffer_limit = BUFFER_MAX
        dispatcher.on_send_buffered = on_buffered

    def shutdown(self, consumer: Any) -> None:
        """Send the last events before the connection is closed."""
        if consumer.event_dispatcher is not None:
            consumer.event_dispatcher.flush()
