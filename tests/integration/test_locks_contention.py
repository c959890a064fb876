"""Many at once: never two inside, whoever pauses, crashes or gives up."""

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.locks import LockBusy, LockHandle, LockLost, SessionLock, TurnRWLock, WaitCancelled
from fleet.locks.renewal import RENEWAL
from fleet.store import Store
from tests.fixtures import locks
from tests.fixtures.valkey import Valkey

CONTENDERS = """
wrong = []
def contend(number):
    for turn in range(5):
        with SessionLock(store, "s", f"{os.getpid()}-{number}", acquire_timeout_s=50) as lock:
            if store.client.incr("inside") != 1:
                wrong.append(lock.token)
            store.client.rpush("tokens", lock.token)
            store.client.decr("inside")
threads = [threading.Thread(target=contend, args=(number,)) for number in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(wrong, flush=True)
sys.stdin.readline()
"""


def test_64_contenders_in_4_processes_never_overlap(store: Store, valkey: Valkey) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(locks.python(CONTENDERS, valkey.url)) for _ in range(4)]
        assert [locks.line_of(process) for process in processes] == ["[]"] * 4
    tokens: Any = store.client.lrange("tokens", 0, -1)
    store.client.delete("inside", "tokens")
    numbers = [int(token) for token in tokens]
    assert len(numbers) == 4 * 16 * 5
    assert numbers == sorted(set(numbers))


def test_readers_and_writers_in_parallel_never_mix(store: Store, valkey: Valkey) -> None:
    code = """
lock = TurnRWLock(store, "t", acquire_timeout_s=50)
wrong = []
def contend(number):
    for turn in range(6):
        if (number + turn) % 3:
            with lock.read():
                store.client.incr("readers")
                if int(store.client.get("writers") or 0): wrong.append("a reader beside a writer")
                store.client.decr("readers")
        else:
            with lock.write():
                if store.client.incr("writers") != 1: wrong.append("two writers")
                if int(store.client.get("readers") or 0): wrong.append("a writer beside a reader")
                store.client.decr("writers")
threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(wrong, flush=True)
sys.stdin.readline()
"""
    with ExitStack() as stack:
        processes = [stack.enter_context(locks.python(code, valkey.url)) for _ in range(3)]
        assert [locks.line_of(process) for process in processes] == ["[]"] * 3
    store.client.delete("readers", "writers")


TTL_S = 0.25


@dataclass(frozen=True)
class Actor:
    """The part of one client."""

    arrives_ms: int
    writes: bool
    #: `pauses` past its time to live, `crashes`, `gives up` its wait, is `cancelled`, or `works`.
    fate: str
    takes_ms: int


ACTORS = st.builds(
    Actor,
    arrives_ms=st.integers(0, 60),
    writes=st.booleans(),
    fate=st.sampled_from(["works", "works", "works", "pauses", "crashes", "gives up", "cancelled"]),
    takes_ms=st.integers(0, 30),
)


class Schedule:
    """Runs actors in threads and notes who is inside with a hold that certainly lasts."""

    def __init__(self, store: Store, kind: str) -> None:
        self.store = store
        self.kind = kind
        self.wrong: list[str] = []
        self._lock = threading.Lock()
        self._inside: dict[str, tuple[LockHandle, bool]] = {}
        self._newest = 0

    def run(self, actors: list[Actor]) -> None:
        running = [
            threading.Thread(target=self.act, args=(number, actor))
            for number, actor in enumerate(actors)
        ]
        for one in running:
            one.start()
        for one in running:
            one.join(30)
            assert not one.is_alive()

    def hold(self, number: int, actor: Actor) -> LockHandle:
        wait_s = actor.takes_ms / 1000 if actor.fate == "gives up" else 20.0
        if self.kind == "session":
            return SessionLock(self.store, "s", f"turn-{number}", TTL_S, wait_s).hold()
        turn = TurnRWLock(self.store, "t", TTL_S, wait_s)
        return turn.write() if actor.writes else turn.read()

    def act(self, number: int, actor: Actor) -> None:
        time.sleep(actor.arrives_ms / 1000)
        hold = self.hold(number, actor)
        cancelling = threading.Timer(actor.takes_ms / 1000, hold.cancel)
        if actor.fate == "cancelled":
            cancelling.start()
        try:
            hold.enter()
            self.inside(hold, actor)
        except (LockBusy, WaitCancelled):
            if actor.fate not in ("gives up", "cancelled"):
                self.wrong.append(f"{actor} waited in vain")
        if actor.fate == "cancelled":
            cancelling.join()

    def inside(self, hold: LockHandle, actor: Actor) -> None:
        self.come(hold, actor)
        if actor.fate in ("pauses", "crashes"):
            # As in a process that is stopped, or is no more: nothing renews it.
            RENEWAL.remove(hold)
            time.sleep(TTL_S * 1.2 if actor.fate == "pauses" else 0)
        else:
            time.sleep(actor.takes_ms / 1000)
        with self._lock:
            self._inside.pop(hold.id, None)
        if actor.fate == "crashes":
            return
        told = False
        try:
            hold.leave()
        except LockLost:
            # One who works may lose it too, on a machine that is busy for as long.
            told = True
        if actor.fate == "pauses" and not told:
            self.wrong.append(f"{actor} was not told of its loss")

    def come(self, hold: LockHandle, actor: Actor) -> None:
        alone = self.kind == "session" or actor.writes
        with self._lock:
            for other, other_alone in self._inside.values():
                # Asked after ours was granted: if the other is still sure, both had it.
                if (alone or other_alone) and not other.lost:
                    self.wrong.append(f"{actor} came in beside another")
            # A cancelled one is not inside any more, but does not know it.
            if actor.fate != "cancelled":
                self._inside[hold.id] = (hold, alone)
            try:
                token = hold.token
            except LockLost:
                return
            if alone and token <= self._newest:
                self.wrong.append(f"{actor} has the token {token} after {self._newest}")
            self._newest = max(self._newest, token)


@pytest.mark.parametrize("kind", ["session", "turn"])
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(actors=st.lists(ACTORS, min_size=2, max_size=8))
def test_nobody_is_inside_beside_another(store: Store, kind: str, actors: list[Actor]) -> None:
    schedule = Schedule(store, kind)
    schedule.run(actors)
    assert not schedule.wrong
    lock = locks.session("s") if kind == "session" else locks.turn("t")
    assert not locks.in_line(store, lock)
    last = SessionLock(store, "s", "last") if kind == "session" else None
    with last or TurnRWLock(store, "t").write():
        pass
