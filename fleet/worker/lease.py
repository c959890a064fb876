"""The lease: the exclusive, renewed right to run one agent's dispatches.

The problem: one turn at a time in the whole fleet, though a worker may be killed, stopped or cut
off at any point. A worker acquires the agent's lease before it consumes and renews it at a third of
its time to live. Each acquisition gives a fencing token that only grows, and draws a random name
for it. Every script that moves a dispatch refuses an older token and another name, so a holder that
was paused past its lease can write nothing, nor one whose token a promoted replica gives again.

It could still go on talking to a model. Therefore a holder also stops by itself. The end of the
lease's certain validity lies in memory shared with the child that runs the turn
(`fleet.worker.state`), and both exit when it passes. It is counted from before the renewal was
sent, so it never outlasts the server's own count.

A dead holder need not be waited for where its death is certain: the lease names the holder's
process, and another process of the same machine asks the kernel (`fleet.system.process_identity`).
The holder also keeps one connection open, whose client id is in the lease. The end of this
connection proves nothing by itself: connections of living processes break too, and their turns go
on. A holder whose whole host vanished keeps the lease until the time to live has passed.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import redis

from fleet.ledger import LeaseToken
from fleet.store import Store, keys
from fleet.store.connection import reachable
from fleet.store.lease_calls import LeaseCall, ReleaseCall, RenewCall
from fleet.store.wakeup import WakeupPublisher
from fleet.system import process_identity
from fleet.system.clock import boottime
from fleet.worker.state import SharedLeaseState

#: A holder stops by itself this share of the time to live before the server frees the lease: room
#: for a process that is scheduled late on a busy machine.
SAFETY = 0.1
#: How soon a standing-by worker notices that a holder of its own machine has died.
POLL_INTERVAL_S = 0.05
#: How often it asks the server, where the holder is on another machine.
HOLDER_POLL_INTERVAL_S = 0.5

#: Two periods of beat's `health` job.
BEAT_SILENCE_MS = 10_000


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """The holder of a lease that could not be acquired."""

    fence: str
    holder: str
    client: str
    run: str
    process: str


class Lease:
    """One worker's lease of one agent. Safe to call from any thread of its process.

    `is_gone` is true when the process of a name has certainly ended.
    """

    def __init__(
        self,
        store: Store,
        agent: str,
        ttl_s: float,
        shared: SharedLeaseState,
        notify: WakeupPublisher | None = None,
        is_gone: Callable[[str], bool] = process_identity.is_gone,
    ) -> None:
        self.agent = agent
        self.ttl_s = ttl_s
        self.fence = 0
        self.epoch = ""
        self.holder = f"{socket.gethostname()}:{os.getpid()}"
        self.shared = shared
        self._process = process_identity.identity()
        self._is_gone = is_gone
        self._holder: LeaseHolder | None = None
        self._store = store
        self._notify = notify
        self._beacon: redis.Redis | None = None
        self._client = self._run = ""
        self._name = uuid.uuid4().hex
        self._lock = threading.Lock()

    @property
    def store(self) -> Store:
        """The lease's own client, with short timeouts."""
        return self._store

    def token(self) -> LeaseToken:
        """The right of this lease, for those who act for its holder."""
        return LeaseToken(
            agent=self.agent,
            fence=self.fence,
            lease=self._name,
            holder=self.holder,
            epoch=self.epoch,
        )

    def acquire(self) -> bool:
        """Acquire the lease when it is free or its holder is dead. Raises BrokerUnavailable."""
        with self._lock:
            holder = self._try_acquire("")
            if holder is not None and self._is_dead(holder):
                holder = self._try_acquire(holder.fence)
            self._holder = holder
            return holder is None

    def await_release(self) -> None:
        """After `acquire` failed: return when the holder has died, or to ask the server again."""
        until = time.monotonic() + HOLDER_POLL_INTERVAL_S
        while time.monotonic() < until:
            if self._holder is None or self._is_gone(self._holder.process):
                return
            time.sleep(POLL_INTERVAL_S)

    def renew(self, *, busy: bool = True, consuming: bool = True) -> bool:
        """True while this worker has the lease. After BrokerUnavailable `shared` decides.

        A worker that is not `busy` has no wake-up in hand, and gets one if there is work.
        `consuming` is for people: the worker consumes its queue.
        """
        with self._lock:
            return not self.fence or self._renew(busy, consuming)

    def release(self) -> None:
        """Release the lease, and an unfinished turn with it. Raises BrokerUnavailable."""
        with self._lock:
            if self.fence:
                self._store.run(ReleaseCall(agent=self.agent, fence=self.fence, lease=self._name))
                self.fence, self._name = 0, uuid.uuid4().hex
                self.shared.clear()

    def data_is_gone(self) -> bool:
        """True when the store was emptied or restored since the lease was acquired."""
        with reachable():
            return self._store.client.get(keys.EPOCH) != self.epoch

    def forget_beacon(self) -> None:
        """Drop the inherited connection in a forked child; only the holder keeps it open."""
        if self._beacon is not None:
            self._beacon.connection_pool.disconnect()

    def _renew(self, busy: bool, consuming: bool) -> bool:
        sent = boottime()
        self._open_beacon()
        call = RenewCall(
            agent=self.agent,
            fence=self.fence,
            lease=self._name,
            ttl_ms=int(self.ttl_s * 1000),
            client=self._client,
            run=self._run,
            process=self._process,
            holder=self.holder,
            busy=1 if busy else 0,
            consuming=1 if consuming else 0,
            beat_silence_ms=BEAT_SILENCE_MS,
        )
        ours, woken = self._store.run(call)
        if not ours:
            return False
        if woken and self._notify:
            self._notify(self.agent, woken)
        self.shared.valid_until = sent + self.ttl_s * (1 - SAFETY)
        # So that this machine can tell a step of the server's clock, where beat is on another.
        with reachable():
            self._store.clock.look()
        return True

    def _try_acquire(self, dead_fence: str) -> LeaseHolder | None:
        sent = boottime()
        self._open_beacon()
        call = LeaseCall(
            agent=self.agent,
            ttl_ms=int(self.ttl_s * 1000),
            holder=self.holder,
            client=self._client,
            run=self._run,
            lease=self._name,
            process=self._process,
            stolen=dead_fence,
        )
        answer = self._store.run(call)
        if not answer[0]:
            return LeaseHolder(*(str(part) for part in answer[1:6]))
        self.fence, self.epoch = int(answer[1]), str(answer[3])
        self.shared.valid_until = sent + self.ttl_s * (1 - SAFETY)
        return None

    def _is_dead(self, holder: LeaseHolder) -> bool:
        if not self._is_gone(holder.process) or holder.run != self._run or not holder.client:
            return False
        with reachable():
            clients = self._store.client.client_list(client_id=[holder.client])
        return not clients

    def _open_beacon(self) -> None:
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
