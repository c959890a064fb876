"""One worker process's knowledge of its leases, for its bootsteps, Requests and children."""

import json
import mmap
import os
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fleet.system.agent_lock import TurnLock
from fleet.system.clock import boottime

if TYPE_CHECKING:
    from fleet.worker.lease import Lease
    from fleet.worker.pool_leases import PoolLeases

#: The end of the leases' validity, and the order to begin no other turn.
_HEAD = struct.Struct("=d?7x")
#: Of each child: its pid, the wish to replace it, and the length of what follows: its turn as JSON.
_SLOT = struct.Struct("=I?3xI")
_TEXT_MAX = 4096 - _SLOT.size
#: Of a session's name in that JSON; the name is for people.
_SESSION_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTurn:
    """A turn that a child runs now, and the right by which it does."""

    dispatch_id: str
    agent: str
    session: str
    attempt: int
    fence: int
    lease: str
    pid: int
    hard_until: float  #: by the clock since boot; 0.0 where Celery keeps the hard limit


class SharedLeaseState:
    """Some bytes that a worker shares with the children it forks later.

    They hold the end of the validity of all its leases, by a clock that all processes share and
    nobody sets; whether the worker itself leaves, so that no other turn may begin; and for each
    child the turn that it runs, and whether it must be replaced before its next one.
    """

    def __init__(self, children: int = 1) -> None:
        self.children = children
        self._memory = mmap.mmap(-1, _HEAD.size + children * (_SLOT.size + _TEXT_MAX))

    def clear(self) -> None:
        """Forget everything."""
        self._memory[:] = bytes(len(self._memory))

    @property
    def valid_until(self) -> float:
        """End of the leases' validity; 0.0 before there was a lease."""
        until: float = _HEAD.unpack_from(self._memory)[0]
        return until

    @valid_until.setter
    def valid_until(self, until: float) -> None:
        struct.pack_into("=d", self._memory, 0, until)

    @property
    def leaving(self) -> bool:
        """True when this worker ends after the turns that run now."""
        return bool(_HEAD.unpack_from(self._memory)[1])

    @leaving.setter
    def leaving(self, wanted: bool) -> None:
        struct.pack_into("=?", self._memory, 8, wanted)

    def left_s(self) -> float:
        """Seconds left; negative when the leases may already belong to others."""
        return self.valid_until - boottime()

    def lost(self) -> bool:
        """True when there was a lease and its time has passed."""
        return self.valid_until > 0 and self.left_s() <= 0

    # Children.

    def enter(self, slot: int) -> None:
        """Give a slot to the calling process, which has just been forked.

        The turn of a process that had it before, and died, stays until the worker has ended it.
        """
        struct.pack_into("=I?", self._memory, _place(slot), os.getpid(), False)

    def has_left(self, slot: int, pid: int) -> bool:
        """True when a process that had a slot has been replaced."""
        its_pid: int = _SLOT.unpack_from(self._memory, _place(slot))[0]
        return its_pid != pid

    def begin(self, slot: int, turn: RunningTurn) -> None:
        """Record the turn that a child begins."""
        text = json.dumps(asdict(turn)).encode()
        place = _place(slot)
        self._memory[place + _SLOT.size : place + _SLOT.size + len(text)] = text
        # Last: a reader goes by the length.
        struct.pack_into("=I", self._memory, place + 8, len(text))

    def end(self, slot: int) -> None:
        """Record that a child's turn is over."""
        struct.pack_into("=I", self._memory, _place(slot) + 8, 0)

    def turns(self) -> dict[int, RunningTurn]:
        """The turns that run now, by slot."""
        found = {}
        for slot in range(self.children):
            place = _place(slot)
            size = _SLOT.unpack_from(self._memory, place)[2]
            if size:
                text = self._memory[place + _SLOT.size : place + _SLOT.size + size]
                found[slot] = RunningTurn(**json.loads(text))
        return found

    @property
    def turn(self) -> RunningTurn | None:
        """The one turn of a worker with one child, or None."""
        return next(iter(self.turns().values()), None)

    @property
    def running(self) -> str:
        """Id of a dispatch whose turn runs now, or an empty string."""
        return self.turn.dispatch_id if self.turn else ""

    def retire(self, slot: int, wanted: bool) -> None:
        """Ask for the replacement of a child before it runs another turn, or not any more."""
        struct.pack_into("=?", self._memory, _place(slot) + 4, wanted)

    def retires(self, pid: int) -> bool:
        """True, once, when the child of that pid has asked to be replaced."""
        for slot in range(self.children):
            its_pid, wanted, _ = _SLOT.unpack_from(self._memory, _place(slot))
            if its_pid == pid and wanted:
                self.retire(slot, False)
                return True
        return False


def _place(slot: int) -> int:
    return _HEAD.size + slot * (_SLOT.size + _TEXT_MAX)


class WorkerState:
    """The leases of this process. Empty in a worker of the shared queues."""

    def __init__(self) -> None:
        #: Of a worker that serves one agent.
        self.lease: Lease | None = None
        #: Of a worker of a pool; its children know it too.
        self.pool: PoolLeases | None = None
        #: Kept until this process and its children have ended; see `fleet.system.agent_lock`.
        self.agent_lock: TurnLock | None = None
        #: Made before the pool forks, so that the children see it.
        self.shared = SharedLeaseState()
        #: The place of this child in it.
        self.slot = 0
        self._given = False
        #: Turns whose children were killed, with state and reason, for those who follow events.
        self.killed: deque[tuple[RunningTurn, str, str]] = deque(maxlen=1000)
        #: Set when the worker became idle in an unusual way and should look for work now.
        self.work_wanted = threading.Event()

    def prepare(self, children: int = 1) -> None:
        """Make the shared state; called once in each worker, before it forks its pool."""
        if not self._given:
            self.shared = SharedLeaseState(children)

    def use_shared_state(self, shared: SharedLeaseState) -> None:
        """Use a state that a host sees too; called in a worker that the host has just forked."""
        self.shared, self._given = shared, True

    def enter_child(self, slot: int) -> None:
        """Take a slot; called in each child when it starts."""
        self.slot = slot
        self.shared.enter(slot)

    @contextmanager
    def running(self, turn: RunningTurn) -> Iterator[None]:
        """Within this block the worker knows the turn that its child runs."""
        self.shared.begin(self.slot, turn)
        try:
            yield
        finally:
            self.shared.end(self.slot)


def running_turn(
    *,
    dispatch_id: str,
    agent: str,
    session: str,
    attempt: int,
    right: tuple[int, str],
    limit_s: float,
) -> RunningTurn:
    """The turn that this process begins under a right, its fence and the name of its lease.

    `limit_s` until its hard limit, 0.0 where Celery keeps it.
    """
    return RunningTurn(
        dispatch_id=dispatch_id,
        agent=agent,
        session=session[:_SESSION_CHARS],
        attempt=attempt,
        fence=right[0],
        lease=right[1],
        pid=os.getpid(),
        hard_until=boottime() + limit_s if limit_s else 0.0,
    )


WORKER = WorkerState()
