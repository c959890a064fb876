"""What one worker process knows of its lease; for its bootsteps, Requests and tasks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fleet.lease import Lease, SharedPage
from fleet.local import TurnLock


class Holder:
    """The one lease of this process. Empty in a worker of the shared queues."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        #: Kept until this process and its children have ended; see `fleet.local`.
        self.here: TurnLock | None = None
        #: Made before the pool forks, so that the children see it.
        self.page = SharedPage()
        self._given = False
        #: Set when the worker became idle in an unusual way and should look for work now.
        self.look = threading.Event()

    def prepare(self) -> None:
        """Called once in each worker, before it forks its pool."""
        if not self._given:
            self.page = SharedPage()

    def give(self, page: SharedPage) -> None:
        """A page that a host sees too; called in a worker that the host has just forked."""
        self.page, self._given = page, True

    @contextmanager
    def running(self, dispatch_id: str) -> Iterator[None]:
        """Within this block the worker knows what its child runs."""
        self.page.running = dispatch_id
        try:
            yield
        finally:
            self.page.running = ""


HOLDER = Holder()
