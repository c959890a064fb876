"""What one worker process knows of its lease; for its bootsteps, Requests and tasks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fleet.system.agent_lock import TurnLock
from fleet.worker.lease import Lease, SharedLeaseState


class WorkerState:
    """The one lease of this process. Empty in a worker of the shared queues."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        #: Kept until this process and its children have ended; see `fleet.system.agent_lock`.
        self.agent_lock: TurnLock | None = None
        #: Made before the pool forks, so that the children see it.
        self.shared = SharedLeaseState()
        self._given = False
        #: Set when the worker became idle in an unusual way and should look for work now.
        self.work_wanted = threading.Event()

    def prepare(self) -> None:
        """Called once in each worker, before it forks its pool."""
        if not self._given:
            self.shared = SharedLeaseState()

    def use_shared_state(self, page: SharedLeaseState) -> None:
        """A page that a host sees too; called in a worker that the host has just forked."""
        self.shared, self._given = page, True

    @contextmanager
    def running(self, dispatch_id: str) -> Iterator[None]:
        """Within this block the worker knows what its child runs."""
        self.shared.running = dispatch_id
        try:
            yield
        finally:
            self.shared.running = ""


WORKER = WorkerState()
