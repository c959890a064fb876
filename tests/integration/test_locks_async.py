"""The locks in asynchronous code: as many tasks as there are, and cancelled at any moment."""

import asyncio
import random
from typing import Any

import pytest

from fleet.locks import LockBusy, LockLost, SessionLock, TurnRWLock
from fleet.store import Store
from tests.fixtures import locks
from tests.fixtures.processes import wait_until

S, T = locks.session("s"), locks.turn("t")


def lock_of(store: Store, turn: str, wait_s: float = 5.0) -> SessionLock:
    return SessionLock(store, "s", turn, acquire_timeout_s=wait_s)


async def until(condition: Any) -> None:
    await asyncio.to_thread(wait_until, condition)


def test_more_tasks_wait_than_asyncio_has_threads(store: Store) -> None:
    """And the holder still gets one to give the lock back."""
    order: list[int] = []

    async def turn(number: int) -> None:
        async with lock_of(store, f"turn-{number}", wait_s=20.0):
            order.append(number)

    async def all_turns() -> None:
        waiting = []
        async with lock_of(store, "first"):
            for number in range(40):
                waiting.append(asyncio.create_task(turn(number)))
                while len(locks.in_line(store, S)) < number + 1:  # noqa: ASYNC110 - the store's
                    await asyncio.sleep(0.002)
        await asyncio.gather(*waiting)

    asyncio.run(all_turns())
    assert order == list(range(40))


def test_nested_and_readers_and_writers(store: Store) -> None:
    async def calls() -> None:
        lock, turn = lock_of(store, "a"), TurnRWLock(store, "t")
        async with lock, lock:
            assert lock.count == 2
            async with turn.read(), turn.read() as read:
                assert read.token
            async with turn.write():
                with pytest.raises(LockBusy):
                    await turn.read(timeout_s=0.05).__aenter__()
        assert lock.count == 0

    asyncio.run(calls())


def test_a_loss_is_told(store: Store) -> None:
    async def calls() -> None:
        async with lock_of(store, "a"):
            store.client.flushall()

    with pytest.raises(LockLost):
        asyncio.run(calls())


def test_a_cancelled_waiter_leaves_the_line_at_once(store: Store) -> None:
    async def calls() -> None:
        async with lock_of(store, "a"):
            waiting = asyncio.create_task(lock_of(store, "b").__aenter__())
            behind = asyncio.create_task(lock_of(store, "c").__aenter__())
            await until(lambda: len(locks.in_line(store, S)) == 2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert len(locks.in_line(store, S)) == 1
        lock = await behind
        await lock.__aexit__(None, None, None)

    asyncio.run(calls())


def test_a_timeout_is_a_cancellation_too(store: Store) -> None:
    async def calls() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), lock_of(store, "b"):
                pass
        assert not locks.in_line(store, S)

    with lock_of(store, "a"):
        asyncio.run(calls())


@pytest.mark.parametrize("seed", range(3))
def test_cancelled_at_any_moment_nothing_stays_held(store: Store, seed: int) -> None:
    """While waiting, at the moment of the acquisition, inside, or during the release."""
    chance = random.Random(seed)
    inside = 0

    async def turn(number: int) -> None:
        nonlocal inside
        async with lock_of(store, f"turn-{number}"):
            inside += 1
            try:
                assert inside == 1
                await asyncio.sleep(chance.uniform(0, 0.004))
            finally:
                inside -= 1

    async def all_turns() -> None:
        turns = [asyncio.create_task(turn(number)) for number in range(40)]
        while any(not one.done() for one in turns):
            await asyncio.sleep(chance.uniform(0, 0.005))
            chance.choice(turns).cancel()
        ends = await asyncio.gather(*turns, return_exceptions=True)
        wrong = [end for end in ends if end and not isinstance(end, asyncio.CancelledError)]
        assert not wrong, wrong

    asyncio.run(all_turns())
    assert not locks.held_by(store, S)
    assert not locks.in_line(store, S)


def test_cancelled_twice_while_the_store_hangs_it_is_given_back_later(store: Store) -> None:
    """The second cancellation is not waited for; the thread goes on by itself."""

    async def calls() -> None:
        hold = lock_of(store, "a").hold()
        entered = asyncio.Event()

        async def inside() -> None:
            async with hold:
                entered.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(inside())
        await entered.wait()
        store.client.execute_command("CLIENT", "PAUSE", 300, "ALL")
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(calls())
    wait_until(lambda: not locks.held_by(store, S))
