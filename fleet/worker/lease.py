"""The lease: the exclusive, renewed right to run one agent's dispatches.

The problem: one turn at a time in the whole fleet, though a worker may be killed, stopped or cut
off at any point. A worker takes the agent's lease before it consumes and renews it at a third of
its time to live. Each take gives a fencing token that only grows; every script that moves a
dispatch refuses an older one. So a holder that was paused past its lease can write nothing.

What it still could do is go on talking to a model. Therefore a holder also stops by itself: the
time until which the lease is certainly valid lies in memory shared with the child that runs the
turn, and both exit when it passes. It is counted from before the renewal was sent, so it never
outlasts the server's own count.

A dead holder need not be waited for where its death is certain: the lease names the holder's
process, and another process of the same machine asks the kernel (`fleet.system.process_identity`).
It also keeps one connection open, whose client id is in the lease; but that this connection is
gone proves nothing by itself, because connections of living processes break too, and their turns
go on. A holder whose death nobody can see, because its whole host vanished, falls back to the time
to live.
"""

import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from fleet.store import Store, keys
from fleet.store.connection import reachable
from fleet.store.wakeup import WakeupPublisher
from fleet.system import process_identity

#: The end of the lease's validity, the id of a dispatch, and whether the child is spent.
_PAGE = struct.Struct("d64s?")


#: A holder ends by itself this share of the time to live before the server gives the lease away:
#: room for a late wake-up on a busy machine.
SAFETY = 0.1
#: How soon a standing-by worker notices that a holder of its own machine has died.
POLL_INTERVAL_S = 0.05
#: How often it asks the server, where the holder is elsewhere.
ASK_S = 0.5

#: Two periods of beat's `health` job.
BEAT_SILENCE_MS = 10_000


def _now() -> float:
    """Seconds; where it can be, of a clock that goes on while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SharedLeaseState:
    """A few bytes that a worker and the children it forks later both see.

    Holds until when the lease is certainly the worker's, by a clock that is one for all processes
    and never set; which dispatch the child runs; and whether that is the last one it may run.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _PAGE.size)

    def clear(self) -> None:
        """As new: there was no lease."""
        self._memory[:] = bytes(_PAGE.size)

    @property
    def valid_until(self) -> float:
        """0.0 before there was a lease."""
        until: float = _PAGE.unpack_from(self._memory)[0]
        return until

    @valid_until.setter
    def valid_until(self, until: float) -> None:
        struct.pack_into("d", self._memory, 0, until)

    @property
    def running(self) -> str:
        """The id of the dispatch whose turn runs now, or an empty string."""
        text: bytes = _PAGE.unpack_from(self._memory)[1]
        return text.rstrip(b"\0").decode()

    @running.setter
    def running(self, dispatch_id: str) -> None:
        struct.pack_into("64s", self._memory, 8, dispatch_id.encode())

    @property
    def retire_child(self) -> bool:
        """True when the child asks to be replaced before it runs another turn."""
        return bool(_PAGE.unpack_from(self._memory)[2])

    @retire_child.setter
    def retire_child(self, spent: bool) -> None:
        struct.pack_into("?", self._memory, 72, spent)

    def left_s(self) -> float:
        """Seconds left; negative when the lease may already belong to another."""
        return self.valid_until - _now()

    def lost(self) -> bool:
        """True when there was a lease and its time has passed."""
        return self.valid_until > 0 and self.left_s() <= 0


@dataclass(frozen=True, slots=True)
class LeaseToken:
    """What the child that runs a turn must know of its worker's lease."""

    agent: str
    fence: int
    holder: str
    epoch: str


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Who holds a lease that could not be taken."""

    fence: str
    holder: str
    client: str
    run: str
    process: str


class Lease:
    """One worker's hold on one agent. Safe to call from any thread of its process.

    `is_gone` tells whether the process of a name has certainly ended.
    """

    def __init__(
        self,
        store: Store,
        agent: str,
        ttl_s: float,
        page: SharedLeaseState,
        bell: WakeupPublisher | None = None,
        is_gone: Callable[[str], bool] = process_identity.is_gone,
    ) -> None:
        self.agent = agent
        self.ttl_s = ttl_s
        self.fence = 0
        self.epoch = ""
        self.holder = f"{socket.gethostname()}:{os.getpid()}"
        self.page = page
        self._process = process_identity.identity()
        self._is_gone = is_gone
        self._held: LeaseHolder | None = None
        self._store = store
        self._bell = bell
        self._beacon: redis.Redis | None = None
        self._client = self._run = ""
        self._lock = threading.Lock()

    @property
    def store(self) -> Store:
        """What it is renewed through: a client of its own, with short timeouts."""
        return self._store

    def acquire(self) -> bool:
        """Take the lease when it is free or its holder is dead. Raises BrokerUnavailable."""
        with self._lock:
            held = self._take("")
            if held is not None and self._is_dead(held):
                held = self._take(held.fence)
            self._held = held
            return held is None

    def await_chance(self) -> None:
        """After `take` was refused: return when the holder has died, or when ASK_S have passed."""
        until = time.monotonic() + ASK_S
        while time.monotonic() < until:
            if self._held is None or self._is_gone(self._held.process):
                return
            time.sleep(POLL_INTERVAL_S)

    def renew(self, *, busy: bool = True, consuming: bool = True) -> bool:
        """True while the lease is ours. After BrokerUnavailable it is until its page says so.

        Not `busy`: the worker has no doorbell in hand, and gets one if there is anything to do.
        `consuming` is for people: the worker takes doorbells from its queue.
        """
        with self._lock:
            return not self.fence or self._renew(busy, consuming)

    def release(self) -> None:
        """Give the lease back, and an unfinished turn with it. Raises BrokerUnavailable."""
        with self._lock:
            if self.fence:
                self._store.run("release", self.agent, self.fence)
                self.fence = 0
                self.page.clear()

    def data_is_gone(self) -> bool:
        """True when the store has begun a new life since the lease was taken: it was emptied."""
        with reachable():
            return self._store.client.get(keys.EPOCH) != self.epoch

    def forget_beacon(self) -> None:
        """In a forked child: drop the inherited connection; only the holder keeps it open."""
        if self._beacon is not None:
            self._beacon.connection_pool.disconnect()

    def _renew(self, busy: bool, consuming: bool) -> bool:
        sent = _now()
        self._light_beacon()
        proof = (self._client, self._run, self._process, self.holder)
        args = (self.agent, self.fence, int(self.ttl_s * 1000), *proof)
        signs = (int(busy), int(consuming), BEAT_SILENCE_MS)
        ours, rung = self._store.run("renew", *args, *signs)
        if not ours:
            return False
        if rung and self._bell:
            self._bell(self.agent, rung)
        self.page.valid_until = sent + self.ttl_s * (1 - SAFETY)
        return True

    def _take(self, stolen: str) -> LeaseHolder | None:
        sent = _now()
        self._light_beacon()
        answer = self._store.run(
            "lease",
            self.agent,
            int(self.ttl_s * 1000),
            self.holder,
            self._client,
            self._run,
            self._process,
            stolen,
        )
        if not answer[0]:
            return LeaseHolder(*(str(part) for part in answer[1:6]))
        self.fence, self.epoch = int(answer[1]), str(answer[3])
        self.page.valid_until = sent + self.ttl_s * (1 - SAFETY)
        return None

    def _is_dead(self, held: LeaseHolder) -> bool:
        if not self._is_gone(held.process) or held.run != self._run or not held.client:
            return False
        with reachable():
            clients = self._store.client.client_list(client_id=[held.client])
        return not clients

    def _light_beacon(self) -> None:
        """Keep one connection open that lives exactly as long as this process."""
        with reachable():
            if self._beacon is None:
                pool = self._store.client.connection_pool
                self._beacon = redis.Redis(
                    connection_pool=redis.ConnectionPool(
                        connection_class=pool.connection_class,
                        max_connections=1,
                        **pool.connection_kwargs,
                    )
                )
            client = str(self._beacon.client_id())
            if client != self._client:
                self._client = client
                self._run = str(self._beacon.info("server")["run_id"])
