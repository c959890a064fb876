"""The reader/writer lock of a turn on a real store."""

import threading
import time
from collections.abc import Callable

import pytest

from fleet.locks import LockBusy, LockHandle, LockLost, TurnRWLock
from fleet.locks.renewal import RENEWAL
from fleet.store import Store, keys
from tests.fixtures import locks
from tests.fixtures.processes import wait_until

T = locks.turn("t")


@pytest.fixture
def lock(store: Store) -> TurnRWLock:
    return TurnRWLock(store, "t")


def start(call: Callable[[], object]) -> threading.Thread:
    running = threading.Thread(target=call)
    running.start()
    return running


def refused(hold: LockHandle) -> bool:
    """True when it is not free now."""
    try:
        with hold:
            return False
    except LockBusy:
        return True


def test_reads_in_parallel(lock: TurnRWLock) -> None:
    with lock.read(), lock.read(), lock.read(timeout_s=0.0) as third:
        assert third.token


def test_a_write_is_alone(lock: TurnRWLock) -> None:
    with lock.write():
        assert refused(lock.read(timeout_s=0.0))
        assert refused(lock.write(timeout_s=0.0))
    with lock.write(timeout_s=0.0):
        pass


def test_turns_do_not_block_each_other(store: Store, lock: TurnRWLock) -> None:
    with lock.write(), TurnRWLock(store, "other").write(timeout_s=0.0) as other:
        assert other.token


def test_tokens_grow_from_write_to_write(lock: TurnRWLock) -> None:
    tokens = []
    for hold in (lock.write(), lock.read(), lock.write(), lock.write()):
        with hold:
            tokens.append(hold.token)
    assert tokens == sorted(set(tokens))


def test_the_order_of_the_line_is_kept(store: Store, lock: TurnRWLock) -> None:
    """Readers who are next to each other go in together; nobody overtakes."""
    events: list[str] = []
    inside = threading.Barrier(2, timeout=10)

    def read(name: str) -> None:
        with lock.read(timeout_s=20):
            # Passed only by two readers who are inside at the same time.
            inside.wait()
            events.append(name)

    def write(name: str) -> None:
        with lock.write(timeout_s=20):
            events.append(name)

    kinds = [("r1", read), ("r2", read), ("w1", write), ("w2", write), ("r3", read), ("r4", read)]
    waiting = []
    with lock.write():
        for place, (name, kind) in enumerate(kinds):
            waiting.append(start(lambda n=name, k=kind: k(n)))  # type: ignore[misc]
            wait_until(lambda p=place: len(locks.in_line(store, T)) == p + 1)  # type: ignore[misc]
    for one in waiting:
        one.join(20)
    assert sorted(events[:2]) == ["r1", "r2"]
    assert events[2:4] == ["w1", "w2"]
    assert sorted(events[4:]) == ["r3", "r4"]


def test_a_reader_that_gets_in_wakes_the_next(store: Store, lock: TurnRWLock) -> None:
    one, other = lock.read(), lock.read()
    with lock.write():
        places = [hold._ask(0, 0.0)[1] for hold in (one, other)]
    assert one._ask(places[0], 0.0)[0] == 1
    assert store.client.exists(keys.lock_wake(other.id))
    assert other._ask(places[1], 0.0)[0] == 1
    for hold in (one, other):
        hold.cancel()


def test_a_write_waits_for_the_reads_in_flight_and_later_reads_for_it(
    store: Store, lock: TurnRWLock
) -> None:
    first, second = lock.read(), lock.read()
    first.enter()
    second.enter()
    write = lock.write()
    writing = start(write.enter)
    wait_until(lambda: len(locks.in_line(store, T)) == 1)
    assert refused(lock.read(timeout_s=0.0)), "a waiting writer blocks new readers"
    first.leave()
    assert locks.in_line(store, T) == [write.id]
    second.leave()
    writing.join(5)
    assert write.token
    write.leave()


@pytest.mark.parametrize("stream", ["read", "write"])
def test_nobody_starves(lock: TurnRWLock, stream: str) -> None:
    """Four threads come again at once, as often as they can; one of the other kind gets in."""
    stop = threading.Event()
    times = []

    def again() -> None:
        while not stop.is_set():
            with getattr(lock, stream)(timeout_s=20):
                times.append(1)

    streaming = [start(again) for _ in range(4)]
    try:
        wait_until(lambda: len(times) > 20)
        for _ in range(5):
            began = len(times)
            with lock.write(timeout_s=5) if stream == "read" else lock.read(timeout_s=5):
                # All four were before it in line at most once or twice; the rest is scheduling.
                assert len(times) - began < 100
    finally:
        stop.set()
        for one in streaming:
            one.join(20)


def test_a_reader_that_outlives_its_time_and_gives_back_corrupts_nothing(
    store: Store, lock: TurnRWLock
) -> None:
    late = lock.read()
    late.enter()
    RENEWAL.remove(late)
    locks.steal(store, late)
    with lock.write(timeout_s=0.0) as write:
        with pytest.raises(LockLost):
            late.leave()
        assert write.check()
        assert refused(lock.read(timeout_s=0.0))
    with lock.read(timeout_s=0.0), lock.read(timeout_s=0.0):
        assert refused(lock.write(timeout_s=0.0))
    with lock.write(timeout_s=0.0):
        pass


def test_a_late_reader_takes_no_place_from_one_in_flight(store: Store, lock: TurnRWLock) -> None:
    late, other = lock.read(), lock.read()
    late.enter()
    other.enter()
    locks.steal(store, late)
    with pytest.raises(LockLost):
        late.leave()
    assert refused(lock.write(timeout_s=0.0))
    other.leave()
    with lock.write(timeout_s=0.0):
        pass


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_crashed_holder_ends_by_itself(store: Store, kind: str) -> None:
    lock = TurnRWLock(store, "t", ttl_s=0.4)
    crashed = getattr(lock, kind)()
    crashed.enter()
    RENEWAL.remove(crashed)
    began = time.monotonic()
    with lock.write() as write:
        assert time.monotonic() - began < 5
        assert write.token > 0
    assert crashed.lost


def test_a_crashed_reader_ends_for_itself_while_another_goes_on(store: Store) -> None:
    lock = TurnRWLock(store, "t", ttl_s=1.5)
    crashed, other = lock.read(), lock.read()
    crashed.enter()
    other.enter()
    RENEWAL.remove(crashed)
    wait_until(lambda: crashed.lost)
    assert other.check()
    assert refused(lock.write(timeout_s=0.0))
    other.leave()
    # The crashed one is sure of its loss a moment before the store is.
    with lock.write(timeout_s=5):
        pass


def test_a_dead_writer_in_line_stops_nobody_for_long(store: Store, lock: TurnRWLock) -> None:
    """It asked once and was never heard of again."""
    read = lock.read()
    read.enter()
    dead = lock.write()
    answer = dead._ask(0, 0.0)
    assert answer[0] == 0
    began = time.monotonic()
    with lock.read() as later:
        assert time.monotonic() - began < 10
        assert later.token == read.token
    read.leave()
    assert not locks.in_line(store, T)


def test_readers_are_let_in_when_the_writer_before_them_gives_up(
    store: Store, lock: TurnRWLock
) -> None:
    with lock.read():
        write = lock.write(timeout_s=1.5)
        writing = start(lambda: refused(write))
        wait_until(lambda: locks.in_line(store, T) == [write.id])
        began = time.monotonic()
        with lock.read() as later:
            assert later.token
            assert time.monotonic() - began < 8
        writing.join(5)
    assert not locks.in_line(store, T)
