"""A worker keeps its queues, its pool and its limits, whatever somebody's `celery control` changes.

Anybody who reaches the broker may send remote control, to all workers and by mistake. A worker that
consumes nothing any more, or has no child, looks well to Celery and takes no work for ever. So each
worker of the fleet checks itself: it reports a change, and undoes it.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from celery import bootsteps
from celery.worker.control import Panel

from fleet import runtime
from fleet.errors import BrokerUnavailable
from fleet.ledger import bus, refusals
from fleet.store import Store

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5
#: A change lasts this long, so that those who poll `/health` see it.
MEND_AFTER_S = 4.0
#: Revocations are reported together.
REVOKED_ONCE_IN_S = 10.0


class UndoRemoteControl(bootsteps.StartStopStep):
    """Consumer bootstep: checks the worker's state while it consumes."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        # Before anybody could change them; a cancelled queue stays cancelled over a reconnect.
        self._queues = tuple(consumer.app.amqp.queues.consume_from)
        self._processes = 0  #: 0 before the first start, and where Celery scales the pool itself
        self._limits: dict[str, tuple[Any, Any]] = {}
        self._since: dict[str, float] = {}  #: when each fault was seen first
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Check from now on; called by Celery after each connect."""
        if not self._limits:
            self._limits = {task.name: _limits(task) for task in _tasks(consumer)}
            if consumer.controller.autoscaler is None:
                self._processes = consumer.pool.num_processes
        self._timer = consumer.timer.call_repeatedly(POLL_INTERVAL_S, self._check, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Check no more: a stopping worker gives up its queues."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self, consumer: Any) -> None:
        if consumer.task_consumer is None:
            return
        faults, now = dict(self._faults(consumer)), time.monotonic()
        for fault in faults.keys() - self._since.keys():
            report(f"{consumer.hostname} was changed by remote control: {fault}; it undoes that")
        self._since = {fault: self._since.get(fault, now) for fault in faults}
        for fault, mend in faults.items():
            if now - self._since[fault] >= MEND_AFTER_S:
                consumer.call_soon(mend)
                # Where it is there again at the next check, somebody has done it again.
                del self._since[fault]

    def _faults(self, consumer: Any) -> Iterator[tuple[str, Callable[[], object]]]:
        """Each deviation from the worker's own state, and how to undo it."""
        consumed = {queue.name for queue in consumer.task_consumer.queues}
        for queue in self._queues:
            if not consumer.task_consumer.consuming_from(queue):
                yield f"it does not consume {queue}", partial(consumer.add_task_queue, queue)
        for queue in consumed.difference(self._queues):
            yield f"it consumes {queue}", partial(consumer.cancel_task_queue, queue)
        there = consumer.pool.num_processes
        if there < self._processes:
            missing = self._processes - there
            yield f"its pool has {there} processes", partial(_grow, consumer.pool, missing)
        for task in _tasks(consumer):
            if _limits(task) != self._limits[task.name]:
                fault = f"{task.name} has other time limits"
                yield fault, partial(_set_limits, task, self._limits[task.name])


def report(sentence: str, *, once_in_s: float = 0.0) -> None:
    """Log a change, and put an alert on the bus."""
    logger.warning(sentence)
    _in_thread(lambda store: bus.alert(store, "remote_control", sentence, once_in_s=once_in_s))


def count_refusal() -> None:
    """Count a message that was refused."""
    _in_thread(refusals.count)


def _in_thread(write: Callable[[Store], None]) -> None:
    """Write to the store from a thread: the main loop must not wait."""

    def put() -> None:
        try:
            write(runtime.current().store)
        except BrokerUnavailable as error:
            logger.warning("this could not be written to the store: %s", error)

    threading.Thread(target=put, daemon=True).start()


def refuse_growth() -> None:
    """Have this worker refuse `pool_grow`: an agent with two children would run two turns."""

    def refuse(state: Any, **_: Any) -> dict[str, str]:
        report(f"{state.hostname} refused `pool_grow`: an agent runs one dispatch at a time")
        return {"error": "refused: an agent runs one dispatch at a time"}

    Panel.data["pool_grow"] = refuse


def _tasks(consumer: Any) -> list[Any]:
    return [task for name, task in consumer.app.tasks.items() if name.startswith("fleet.")]


def _limits(task: Any) -> tuple[Any, Any]:
    return task.soft_time_limit, task.time_limit


def _set_limits(task: Any, limits: tuple[Any, Any]) -> None:
    task.soft_time_limit, task.time_limit = limits


def _grow(pool: Any, missing: int) -> None:
    pool.grow(missing)
    pool.maintain_pool()
