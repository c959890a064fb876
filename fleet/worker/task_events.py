"""Celery's task events, which Flower follows, sent a few times a second instead of one by one.

Celery publishes each event as soon as its loop turns: before the child gets its task, and at more
than half of the worker's CPU (0.3 ms each). People read these events, so they may come later.

A wake-up's own events name the dispatch that it was pushed for, and the ledger may have chosen
another. So a turn that lasts is told of by a further event, with agent and session.
"""

from typing import Any

from celery import bootsteps

from fleet.ledger.states import State
from fleet.store.wakeup import DISPATCH_TASK
from fleet.worker.state import WORKER

#: How much later Flower sees a task move.
DELAY_S = 0.25
#: A full buffer is sent at once; three events a task, about 300 bytes each.
BUFFER_MAX = 300
#: Between polls of the dispatch that the child runs.
POLL_INTERVAL_S = 0.5


def shown(dispatch_id: str, agent: str, session: str | None, **more: str) -> dict[str, str]:
    """Ids and names of an attempt, for people; `DispatchRequest` finds them by the first."""
    return {"dispatch_id": dispatch_id, "agent": agent, "session": session or "", **more}


class BatchedEvents(bootsteps.StartStopStep):
    """Consumer bootstep: sends buffered task events at most every `DELAY_S`."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._reported: set[str] = set()  #: the running dispatches that people know of
        self._timer: Any = None

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
        self._timer = consumer.timer.call_repeatedly(
            POLL_INTERVAL_S, self._report_running, (dispatcher,)
        )

    def stop(self, consumer: Any) -> None:
        """Poll no more; called by Celery before each connect."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _report_running(self, dispatcher: Any) -> None:
        turns = WORKER.shared.turns().values()
        for turn in turns if dispatcher.enabled else ():
            if turn.dispatch_id not in self._reported:
                kwargs = repr(shown(turn.dispatch_id, turn.agent, turn.session))
                dispatcher.send(
                    "task-started", uuid=turn.dispatch_id, name=DISPATCH_TASK, kwargs=kwargs
                )
        self._reported = {turn.dispatch_id for turn in turns}
        while WORKER.killed and dispatcher.enabled:
            turn, state, reason = WORKER.killed.popleft()
            about = shown(turn.dispatch_id, turn.agent, turn.session, state=state)
            again = state in (State.QUEUED, State.RETRYING)
            kind = "task-retried" if again else "task-failed"
            dispatcher.send(
                kind,
                uuid=turn.dispatch_id,
                name=DISPATCH_TASK,
                kwargs=repr(about),
                exception=f"{reason} {about}",
                traceback="",
            )

    def shutdown(self, consumer: Any) -> None:
        """Send the last events before the connection is closed."""
        if consumer.event_dispatcher is not None:
            consumer.event_dispatcher.flush()
