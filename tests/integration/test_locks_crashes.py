"""Holders and waiters that are killed, stopped or interrupted, and a store that is."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.errors import BrokerUnavailable
from fleet.locks import LockLost, SessionLock, TurnRWLock
from fleet.locks.calls import calls_of
from fleet.locks.renewal import RENEWAL
from fleet.store import Store, open_store
from tests.fixtures import locks
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey

S, T = locks.session("s"), locks.turn("t")

HOLD = """
lock = SessionLock(store, "s", "theirs", ttl_s=float(sys.argv[2]))
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
print(f"lost={lock.lost}", flush=True)
try:
    lock.release()
    print("released", flush=True)
except LockLost:
    print("LockLost", flush=True)
"""

WAIT = """
def wait(number):
    SessionLock(store, "s", f"{os.getpid()}-{number}", acquire_timeout_s=30).acquire()
    time.sleep(60)
for number in range(int(sys.argv[2])):
    threading.Thread(target=wait, args=(number,), daemon=True).start()
time.sleep(60)
"""


def lock_of(store: Store, turn: str = "ours", wait_s: float = 5.0) -> SessionLock:
    return SessionLock(store, "s", turn, acquire_timeout_s=wait_s)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    """One that a test may stop and kill."""
    own = Valkey(tmp_path).start()
    yield own
    own.resume()
    own.kill()


def test_a_killed_holder_keeps_others_out_for_its_time_to_live(
    store: Store, valkey: Valkey
) -> None:
    with locks.python(HOLD, valkey.url, "0.6") as holder:
        assert locks.line_of(holder) == "held"
        until_ms = min(locks.held_by(store, S).values())
        holder.kill()
        with lock_of(store):
            seconds, micros = store.client.time()
            # Renewed at most until it was killed, and free at once when that has passed.
            assert -1 <= seconds * 1000 + micros // 1000 - until_ms < 1500


def test_a_stopped_holder_learns_of_its_loss_before_it_does_anything(
    store: Store, valkey: Valkey
) -> None:
    with locks.python(HOLD, valkey.url, "0.4") as holder:
        assert locks.line_of(holder) == "held"
        os.kill(holder.pid, signal.SIGSTOP)
        with lock_of(store) as lock:
            os.kill(holder.pid, signal.SIGCONT)
            assert holder.stdin is not None
            holder.stdin.write("go\n")
            holder.stdin.flush()
            assert locks.line_of(holder) == "lost=True"
            assert locks.line_of(holder) == "LockLost"
            assert lock.check() == lock.token


def test_killed_waiters_are_skipped(store: Store, valkey: Valkey) -> None:
    """A whole process of them at once, and one behind them gets its turn in about a second."""
    lock = lock_of(store)
    lock.acquire()
    with locks.python(WAIT, valkey.url, "8") as waiters:
        wait_until(lambda: len(locks.in_line(store, S)) == 8)
        waiters.kill()
        waiters.wait(5)
    lock.release()
    began = time.monotonic()
    with lock_of(store, "next"):
        assert time.monotonic() - began < 10


def test_one_who_died_a_moment_ago_stops_the_line_for_a_moment(store: Store) -> None:
    """When it is called and does not come, it is passed over before it counts as silent."""
    with lock_of(store):
        dead = lock_of(store, "dead").hold()
        assert dead._ask(0, 0.0)[0] == 0
    began = time.monotonic()
    with lock_of(store, "next"):
        assert time.monotonic() - began < 4.0


def test_killed_waiters_take_nothing_with_them(store: Store, valkey: Valkey) -> None:
    """The lock is released in the very moment in which they die."""
    for _ in range(5):
        lock = lock_of(store)
        lock.acquire()
        with locks.python(WAIT, valkey.url, "2") as waiters:
            wait_until(lambda: len(locks.in_line(store, S)) == 2)
            waiters.kill()
            lock.release()
            # One of them may have been woken just before; its time to live is 60 s.
            if locks.held_by(store, S):
                (hold,) = locks.held_by(store, S)
                locks.end(store, S, hold)
        with lock_of(store, "next"):
            pass


def test_an_interrupted_waiter_leaves_the_line(store: Store, valkey: Valkey) -> None:
    """As a time limit does it: a handler raises in the middle of the wait."""
    code = """
class Stop(BaseException): pass
def stop(*_): raise Stop
signal.signal(signal.SIGUSR1, stop)
try:
    SessionLock(store, "s", "theirs").acquire()
except Stop:
    print("stopped", flush=True)
with SessionLock(store, "other", "theirs"):
    print("fit", flush=True)
sys.stdin.readline()
"""
    with lock_of(store), locks.python(code, valkey.url) as waiter:
        wait_until(lambda: len(locks.in_line(store, S)) == 1)
        os.kill(waiter.pid, signal.SIGUSR1)
        assert locks.line_of(waiter) == "stopped"
        assert not locks.in_line(store, S)
        assert locks.line_of(waiter) == "fit"


def test_a_forked_child_shares_no_lock_and_no_connection(store: Store, valkey: Valkey) -> None:
    code = """
lock = SessionLock(store, "s", "theirs", ttl_s=1.5)
lock.acquire()
child = os.fork()
if child == 0:
    with SessionLock(store, "other", "child", ttl_s=1.0) as own:
        time.sleep(1.5)
        own.check()
    os._exit(0)
for _ in range(20):
    lock.check()
    time.sleep(0.1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""
    with locks.python(code, valkey.url) as parent:
        assert locks.line_of(parent) == "0"
        assert locks.line_of(parent) == "released"


class TestStore:
    @pytest.mark.parametrize("kind", ["session", "read", "write"])
    def test_a_question_that_timed_out_leaves_no_lock_behind(
        self, server: Valkey, kind: str
    ) -> None:
        """The store was only slow: it grants the lock to one who is not there any more."""
        store = open_store(server.url, socket_timeout_s=0.3)
        turn = TurnRWLock(store, "t")
        holds = {"session": lock_of(store).hold, "read": turn.read, "write": turn.write}
        with holds[kind]():
            pass
        server.pause()
        with pytest.raises(BrokerUnavailable):
            holds[kind]().enter()
        server.resume()
        with lock_of(store, "next", wait_s=3.0), turn.write(timeout_s=3.0):
            pass
        store.close()

    def test_a_wait_that_timed_out_leaves_no_place_behind(self, server: Valkey) -> None:
        store = open_store(server.url, socket_timeout_s=0.3)
        lock = lock_of(store)
        lock.acquire()
        server.pause()
        with pytest.raises(BrokerUnavailable):
            lock_of(store, "waiter").acquire()
        server.resume()
        wait_until(lambda: not locks.in_line(store, S))
        lock.release()
        with lock_of(store, "next", wait_s=1.0):
            pass
        store.close()

    def test_a_release_during_an_outage_comes_later(self, server: Valkey) -> None:
        store = open_store(server.url, socket_timeout_s=0.3)
        with lock_of(store):
            server.pause()
        server.resume()
        with lock_of(store, "next", wait_s=3.0):
            pass
        store.close()

    def test_an_outage_longer_than_the_time_to_live_is_a_loss(self, server: Valkey) -> None:
        store = open_store(server.url, socket_timeout_s=0.2)
        lock = SessionLock(store, "s", "ours", ttl_s=0.6)
        lock.acquire()
        server.pause()
        wait_until(lambda: lock.lost)
        with pytest.raises(LockLost):
            lock.release()
        server.resume()
        store.close()

    def test_a_restarted_store_forgot_the_lock_and_the_holder_learns_it(
        self, server: Valkey
    ) -> None:
        store = open_store(server.url)
        lock = SessionLock(store, "s", "ours", ttl_s=3.0)
        lock.acquire()
        server.kill()
        server.start()
        wait_until(lambda: lock.lost)
        with pytest.raises(LockLost):
            lock.release()
        with lock_of(store, "next", wait_s=0.0):
            pass
        store.close()

    def test_a_waiter_outlives_a_restart(self, server: Valkey) -> None:
        """It asks anew, also where its script is not known any more."""
        store = open_store(server.url)
        hold = lock_of(store).hold()
        hold.enter()
        RENEWAL.remove(hold)
        waiter = lock_of(store, "next", wait_s=10.0)
        server.kill()
        server.start()
        waiter.acquire()
        waiter.release()
        store.close()

    def test_scripts_that_were_thrown_away_are_loaded_again(self, store: Store) -> None:
        lock = lock_of(store)
        with lock:
            store.client.script_flush()
            lock.check()
            store.client.script_flush()
        store.client.script_flush()
        with lock:
            pass

    def test_connections_may_break_as_often_as_they_like(self, store: Store) -> None:
        """A pool of redis-py's counts what it has ever made, and refuses at a hundred."""
        lock = lock_of(store)
        for _ in range(120):
            calls_of(store).forget()
            with lock:
                pass
