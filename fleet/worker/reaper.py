"""Notices a dead pool child at once.

Celery learns of the death from a pipe that closes before the process can be reaped. So it checks
too early, finds nothing, and checks again after up to 5 s. A pidfd becomes readable exactly when
the process can be reaped. Where the system has no pidfd (not Linux) Celery's own 5 s remain.
"""

import contextlib
import os
import signal
from typing import Any

from celery import bootsteps

from fleet.system.process_tags import ProcessTag, kill_tagged
from fleet.worker.state import WORKER


class PoolReaper(bootsteps.StartStopStep):
    """Worker bootstep: the pool replaces its child within milliseconds of the child's death."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._watched: dict[int, int] = {}

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Watch the pool; called by Celery when the main loop starts, and after each reconnect."""
        if hasattr(os, "pidfd_open"):
            for fd in self._watched.values():
                os.close(fd)
            self._watched.clear()
            self._watch(worker.pool, hub)

    def _watch(self, pool: Any, hub: Any) -> None:
        if not pool.active:  # a stopping pool has no children to replace, nor a list of them
            return
        for pid in pool.info.get("processes", ()):
            if pid not in self._watched:
                try:
                    fd = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
                self._watched[pid] = fd
                hub.add_reader(fd, self._died, pool, hub, pid)

    def _died(self, pool: Any, hub: Any, pid: int) -> None:
        fd = self._watched.pop(pid)
        hub.remove(fd)
        os.close(fd)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # what its tools left running
        if pool.active:
            pool.maintain_pool()
        self._watch(pool, hub)
        # Last, because it reads every process of the machine.
        kill_tagged(ProcessTag.CHILD, pid)
        if WORKER.pool is not None:
            WORKER.work_wanted.set()  # its turn is lost
