"""The session lock on a real store, by threads of one process."""

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from fleet.locks import LockBusy, LockHandle, LockLost, SessionLock, WaitCancelled
from fleet.locks.renewal import RENEWAL
from fleet.store import Store
from tests.fixtures import locks
from tests.fixtures.processes import wait_until

S = locks.session("s")


def lock_of(store: Store, turn: str, ttl_s: float = 60.0, wait_s: float = 5.0) -> SessionLock:
    return SessionLock(store, "s", turn, ttl_s=ttl_s, acquire_timeout_s=wait_s)


@contextmanager
def thread(target: Callable[[], object]) -> Iterator[threading.Thread]:
    """Runs beside the block and ends before it is left."""
    running = threading.Thread(target=target)
    running.start()
    try:
        yield running
    finally:
        running.join(20)
        assert not running.is_alive()


def refused(kind: type[Exception], call: Callable[[], object]) -> None:
    with pytest.raises(kind):
        call()


def test_one_turn_at_a_time(store: Store) -> None:
    other = lock_of(store, "b", wait_s=0.0)
    with lock_of(store, "a"), pytest.raises(LockBusy):
        other.acquire()
    with other:
        assert not other.lost


def test_sessions_do_not_block_each_other(store: Store) -> None:
    with lock_of(store, "a"), SessionLock(store, "other", "b", acquire_timeout_s=0.0) as other:
        assert other.count == 1


@pytest.mark.parametrize("name", ["a b", "a:b", "*", "ü\n", "x" * 10_000, "{tag}"])
def test_any_text_names_a_session_and_a_turn(store: Store, name: str) -> None:
    with SessionLock(store, name, name) as lock, pytest.raises(LockBusy) as busy:
        SessionLock(store, name, name + "'", acquire_timeout_s=0.0).acquire()
    assert lock.count == 0
    assert "busy" in str(busy.value)


def test_tokens_only_grow(store: Store) -> None:
    tokens = []
    for turn in ("a", "b", "a", "a"):
        with lock_of(store, turn) as lock:
            tokens.append(lock.token)
    assert tokens == sorted(set(tokens))


def test_the_token_grows_after_everything_about_the_lock_has_expired(store: Store) -> None:
    with lock_of(store, "a") as lock:
        before = lock.token
    store.client.delete(f"fleet:lock:holds:{S}")
    with lock_of(store, "a") as lock:
        assert lock.token > before


class TestReentrancy:
    def test_the_turn_gets_it_again_at_once(self, store: Store) -> None:
        lock = lock_of(store, "a", wait_s=0.0)
        with lock:
            outer = lock.token
            with lock:
                assert (lock.count, lock.token) == (2, outer)
            assert (lock.count, lock.token) == (1, outer)
            with pytest.raises(LockBusy):
                lock_of(store, "b", wait_s=0.0).acquire()
        lock_of(store, "b", wait_s=0.0).acquire()

    def test_from_another_object_too(self, store: Store) -> None:
        one, other = lock_of(store, "a", wait_s=0.0), lock_of(store, "a", wait_s=0.0)
        assert one.acquire() == other.acquire()
        one.release()
        with pytest.raises(LockBusy):
            lock_of(store, "b", wait_s=0.0).acquire()
        other.release()
        with lock_of(store, "b", wait_s=0.0):
            pass

    def test_it_passes_those_who_wait(self, store: Store) -> None:
        """They wait for this very turn to end."""
        lock, waiter = lock_of(store, "a"), lock_of(store, "b")
        with lock:
            waiting = threading.Thread(target=waiter.acquire)
            waiting.start()
            wait_until(lambda: len(locks.in_line(store, S)) == 1)
            with lock:
                assert not waiter.count
        waiting.join(5)
        waiter.release()

    def test_a_nested_hold_that_crashed_ends_for_itself(self, store: Store) -> None:
        """The turn's other hold goes on; after its release the lock waits for nobody."""
        lock = lock_of(store, "a")
        crashed = lock_of(store, "a").hold()
        with lock:
            crashed.enter()
            RENEWAL.remove(crashed)
            locks.steal(store, crashed)
        with lock_of(store, "b", wait_s=0.0):
            pass
        assert lock.count == 0


class TestWaiting:
    def test_first_come_first_served(self, store: Store) -> None:
        order: list[tuple[int, int]] = []

        def turn(number: int) -> None:
            with lock_of(store, f"turn-{number}", wait_s=20.0) as lock:
                order.append((number, lock.token))

        waiting = []
        with lock_of(store, "first"):
            for number in range(20):
                waiting.append(threading.Thread(target=turn, args=(number,)))
                waiting[-1].start()
                wait_until(lambda n=number: len(locks.in_line(store, S)) == n + 1)  # type: ignore[misc]
        for one in waiting:
            one.join(20)
        assert [number for number, _ in order] == list(range(20))
        assert [token for _, token in order] == sorted(token for _, token in order)

    def test_a_release_wakes_the_next_within_milliseconds(self, store: Store) -> None:
        took: list[float] = []

        def turn() -> None:
            with lock_of(store, "next"):
                took.append(time.monotonic())

        waits = []
        for _ in range(15):
            lock = lock_of(store, "first")
            lock.acquire()
            with thread(turn):
                wait_until(lambda: len(locks.in_line(store, S)) == 1)
                released = time.monotonic()
                lock.release()
            waits.append(took[-1] - released)
        # Polling each 50 ms has a median of 25.
        assert statistics.median(waits) < 0.02

    def test_busy_in_time_with_a_hint_and_nothing_left_behind(self, store: Store) -> None:
        with lock_of(store, "a"):
            began = time.monotonic()
            with pytest.raises(LockBusy) as busy:
                lock_of(store, "b", wait_s=0.3).acquire()
            assert 0.25 < time.monotonic() - began < 5
            assert 0 < busy.value.retry_after_s <= 5.0
            assert not locks.in_line(store, S)
        with lock_of(store, "c", wait_s=0.0):
            pass

    def test_who_gives_up_does_not_stop_the_line(self, store: Store) -> None:
        lock = lock_of(store, "a")
        lock.acquire()
        patient = lock_of(store, "patient")
        with thread(lambda: refused(LockBusy, lock_of(store, "b", wait_s=0.3).acquire)):
            wait_until(lambda: len(locks.in_line(store, S)) == 1)
            waiting = threading.Thread(target=patient.acquire)
            waiting.start()
            wait_until(lambda: len(locks.in_line(store, S)) == 2)
        lock.release()
        waiting.join(2)
        assert patient.count == 1
        patient.release()

    def test_a_silent_waiter_is_skipped_and_comes_back_to_its_place(self, store: Store) -> None:
        """It was stopped for a while; those behind it did not wait for it."""
        lock = lock_of(store, "a")
        lock.acquire()
        order: list[str] = []

        def turn(name: str) -> None:
            with lock_of(store, name):
                order.append(name)

        with thread(lambda: turn("b")):
            wait_until(lambda: len(locks.in_line(store, S)) == 1)
            (silent,) = locks.in_line(store, S)
            with thread(lambda: turn("c")):
                wait_until(lambda: len(locks.in_line(store, S)) == 2)
                store.client.zrem(f"fleet:lock:line:{S}", silent)
                wait_until(lambda: locks.in_line(store, S)[0] == silent)
                lock.release()
        assert order == ["b", "c"]

    def test_a_wait_can_be_cancelled_from_another_thread(self, store: Store) -> None:
        hold = lock_of(store, "b").hold()
        with lock_of(store, "a"):
            with thread(lambda: refused(WaitCancelled, hold.enter)):
                wait_until(lambda: len(locks.in_line(store, S)) == 1)
                hold.cancel()
                assert not locks.in_line(store, S)
            assert not hold.lost
        with lock_of(store, "c", wait_s=0.0):
            pass

    @pytest.mark.parametrize("wait_s", [0.0, 5.0])
    def test_a_hold_that_was_cancelled_before_it_began_never_holds(
        self, store: Store, wait_s: float
    ) -> None:
        hold = lock_of(store, "a", wait_s=wait_s).hold()
        hold.cancel()
        with pytest.raises(WaitCancelled):
            hold.enter()
        with lock_of(store, "b", wait_s=0.0):
            pass


class TestLife:
    def test_it_is_renewed_while_it_is_held(self, store: Store) -> None:
        with lock_of(store, "a", ttl_s=1.2) as lock:
            (first,) = locks.held_by(store, S).values()
            wait_until(lambda: min(locks.held_by(store, S).values()) > first + 1500)
            assert not lock.lost
            lock.check()
            with pytest.raises(LockBusy):
                lock_of(store, "b", wait_s=0.0).acquire()

    def test_one_thread_renews_all(self, store: Store) -> None:
        held = [SessionLock(store, f"s{n}", "t", ttl_s=1.2) for n in range(30)]
        for lock in held:
            lock.acquire()
        names = [one.name for one in threading.enumerate()]
        assert names.count("fleet-locks") == 1
        until = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > until)
        assert not any(lock.lost for lock in held)
        for lock in held:
            lock.release()

    def test_what_nobody_knows_any_more_is_not_renewed(self, store: Store) -> None:
        lock: SessionLock | None = lock_of(store, "a", ttl_s=0.3)
        assert lock is not None
        lock.acquire()
        lock = None
        gc.collect()
        with lock_of(store, "b", wait_s=5.0):
            pass

    def test_a_dead_holder_keeps_others_out_for_its_time_to_live(self, store: Store) -> None:
        dead = lock_of(store, "a", ttl_s=0.4).hold()
        began = time.monotonic()
        dead.enter()
        RENEWAL.remove(dead)
        with lock_of(store, "b"):
            assert 0.4 <= time.monotonic() - began < 5
        assert dead.lost

    def test_an_explicit_renewal(self, store: Store) -> None:
        with lock_of(store, "a") as lock:
            (first,) = locks.held_by(store, S).values()
            while min(locks.held_by(store, S).values()) == first:
                lock.renew()


class TestLoss:
    def lose(self, store: Store, lock: SessionLock) -> LockHandle:
        (hold,) = lock._holds
        locks.steal(store, hold)
        return hold

    def test_release_tells(self, store: Store) -> None:
        lock = lock_of(store, "a")
        lock.acquire()
        self.lose(store, lock)
        with lock_of(store, "b") as other:
            with pytest.raises(LockLost):
                lock.release()
            # What is another's stays another's.
            assert other.check() == other.token
        assert lock.count == 0

    def test_use_tells(self, store: Store) -> None:
        lock = lock_of(store, "a")
        lock.acquire()
        self.lose(store, lock)
        refused(LockLost, lock.check)
        assert lock.lost
        refused(LockLost, lambda: lock.token)
        refused(LockLost, lock.renew)
        refused(LockLost, lock.release)

    def test_the_renewal_notices(self, store: Store) -> None:
        lock = lock_of(store, "a", ttl_s=0.6)
        lock.acquire()
        self.lose(store, lock)
        wait_until(lambda: lock.lost)
        refused(LockLost, lock.release)

    def test_a_paused_holder_knows_before_it_asks(self, store: Store) -> None:
        lock = lock_of(store, "a", ttl_s=0.3)
        lock.acquire()
        RENEWAL.remove(lock._holds[0])
        with lock_of(store, "b") as other:
            assert lock.lost
            refused(LockLost, lambda: lock.token)
            assert other.token
            refused(LockLost, lock.release)

    def test_an_emptied_store_is_a_loss(self, store: Store) -> None:
        with pytest.raises(LockLost), lock_of(store, "a"):
            store.client.flushall()

    def test_what_the_block_raised_is_raised_with_a_note(self, store: Store) -> None:
        lock = lock_of(store, "a")

        def block() -> None:
            with lock:
                self.lose(store, lock)
                raise KeyError("x")

        with pytest.raises(KeyError) as raised:
            block()
        assert any("lost" in note for note in raised.value.__notes__)

    def test_an_error_in_the_block_gives_the_lock_back(self, store: Store) -> None:
        with pytest.raises(KeyError), lock_of(store, "a"):
            raise KeyError("x")
        with lock_of(store, "b", wait_s=0.0):
            pass

    def test_what_is_not_held_cannot_be_used(self, store: Store) -> None:
        lock = lock_of(store, "a")
        for use in (lock.release, lock.check, lock.renew, lambda: lock.token):
            with pytest.raises(LockLost, match="not held"):
                use()
        assert not lock.lost
