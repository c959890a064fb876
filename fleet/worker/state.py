"""One worker process's knowledge of its lease, for its bootsteps, its Requests and its children."""

import mmap
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fleet.system.agent_lock import TurnLock
from fleet.system.clock import boottime

if TYPE_CHECKING:
    from fleet.worker.lease import Lease

#: The end of the lease's validity, the id of the running dispatch, the wish to retire the child,
#: the session of that dispatch, and the order to begin no other turn.
_LAYOUT = struct.Struct("d64s?1024s?")


class SharedLeaseState:
    """A few bytes that a worker shares with the children it forks later.

    They hold the end of the lease's validity, by a clock that all processes share and nobody sets;
    the dispatch that the child runs, with its session; whether the child must be replaced before
    its next turn; and whether the worker itself leaves, so that no other turn may begin.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _LAYOUT.size)

    def clear(self) -> None:
        """Forget the lease."""
        self._memory[:] = bytes(_LAYOUT.size)

    @property
    def valid_until(self) -> float:
        """End of the lease's validity; 0.0 before there was a lease."""
        until: float = _LAYOUT.unpack_from(self._memory)[0]
        return until

    @valid_until.setter
    def valid_until(self, until: float) -> None:
        struct.pack_into("d", self._memory, 0, until)

    @property
    def running(self) -> str:
        """Id of the dispatch whose turn runs now, or an empty string."""
        text: bytes = _LAYOUT.unpack_from(self._memory)[1]
        return text.rstrip(b"\0").decode()

    @running.setter
    def running(self, dispatch_id: str) -> None:
        struct.pack_into("64s", self._memory, 8, dispatch_id.encode())

    @property
    def session(self) -> str:
        """The session of that dispatch, or an empty string."""
        text: bytes = _LAYOUT.unpack_from(self._memory)[3]
        return text.rstrip(b"\0").decode(errors="replace")

    @session.setter
    def session(self, session: str) -> None:
        struct.pack_into("1024s", self._memory, 73, session.encode(errors="replace"))

    @property
    def retire_child(self) -> bool:
        """True when the child asks to be replaced before it runs another turn."""
        return bool(_LAYOUT.unpack_from(self._memory)[2])

    @retire_child.setter
    def retire_child(self, wanted: bool) -> None:
        struct.pack_into("?", self._memory, 72, wanted)

    @property
    def leaving(self) -> bool:
        """True when this worker ends after the turn that runs now."""
        return bool(_LAYOUT.unpack_from(self._memory)[4])

    @leaving.setter
    def leaving(self, wanted: bool) -> None:
        struct.pack_into("?", self._memory, 1097, wanted)

    def left_s(self) -> float:
        """Seconds left; negative when the lease may already belong to another worker."""
        return self.valid_until - boottime()

    def lost(self) -> bool:
        """True when there was a lease and its time has passed."""
        return self.valid_until > 0 and self.left_s() <= 0


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
        """Make the shared state; called once in each worker, before it forks its pool."""
        if not self._given:
            self.shared = SharedLeaseState()

    def use_shared_state(self, shared: SharedLeaseState) -> None:
        """Use a state that a host sees too; called in a worker that the host has just forked."""
        self.shared, self._given = shared, True

    @contextmanager
    def running(self, dispatch_id: str, session: str) -> Iterator[None]:
        """Within this block the worker knows the dispatch that its child runs."""
        self.shared.session = session  # first: the worker looks for the id
        self.shared.running = dispatch_id
        try:
            yield
        finally:
            self.shared.running = ""


WORKER = WorkerState()
