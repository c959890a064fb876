"""Both locks in front of a call, and what happens to calls while the store is away."""

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import BrokerUnavailable, ConfigError
from fleet.locks import (
    ConcurrencyGuard,
    LockBusy,
    LockLost,
    OperationClassifier,
    SessionLock,
    StoreUnavailable,
    TurnRWLock,
    guard,
)
from fleet.store import Store, open_store
from tests.fixtures import locks
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey, free_port

S, T = locks.session("s"), locks.turn("a")


def guard_of(
    store: Store, turn: str = "a", wait_s: float = 5.0, on_store_down: Any = "closed"
) -> ConcurrencyGuard:
    return ConcurrencyGuard(
        SessionLock(store, "s", turn, acquire_timeout_s=wait_s),
        TurnRWLock(store, turn, acquire_timeout_s=wait_s),
        OperationClassifier({"search": "read"}),
        on_store_down,
    )


@pytest.fixture
def nobody() -> Store:
    """A store at an address where no server is."""
    return open_store(f"redis://127.0.0.1:{free_port()}/0")


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_OPEN", guard._OpenCalls())


def test_reads_of_a_turn_in_parallel_and_writes_alone(store: Store) -> None:
    ours = guard_of(store, wait_s=0.0)
    with ours.operation("search"), ours.operation("read_file") as read:
        assert not read.lost
        with pytest.raises(LockBusy):
            ours.operation("write_file").enter()
    with ours.operation("write_file"), pytest.raises(LockBusy):
        ours.operation("read_file").enter()


def test_another_turn_of_the_session_waits(store: Store) -> None:
    with guard_of(store).operation("read_file"), pytest.raises(LockBusy) as busy:
        guard_of(store, "b", wait_s=0.0).operation("read_file").enter()
    assert busy.value.retry_after_s > 0


def test_the_session_first_and_given_back_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    call = type(guard_of(store)._session_lock.hold().calls).call

    def note(self: Any, made: Any, **options: Any) -> Any:
        seen.append((made.script, made.lock.partition(":")[0]))
        return call(self, made, **options)

    monkeypatch.setattr("fleet.locks.calls.LockCalls.call", note)
    with guard_of(store).operation("write_file"):
        seen.append(("called", ""))
    assert seen == [
        ("lock_acquire", "session"),
        ("lock_acquire", "turn"),
        ("called", ""),
        ("lock_release", "turn"),
        ("lock_release", "session"),
    ]


def test_a_busy_turn_leaves_the_session_free(store: Store) -> None:
    with TurnRWLock(store, "a").write():
        with pytest.raises(LockBusy):
            guard_of(store, wait_s=0.0).operation("write_file").enter()
        with SessionLock(store, "s", "b", acquire_timeout_s=0.0):
            pass


def test_an_error_in_the_call_gives_both_back(store: Store) -> None:
    with pytest.raises(KeyError), guard_of(store).operation("write_file"):
        raise KeyError("x")
    assert not locks.held_by(store, S)
    assert not locks.held_by(store, T)


def test_a_lost_lock_is_told_and_the_other_is_given_back(store: Store) -> None:
    operation = guard_of(store).operation("write_file")
    operation.enter()
    (hold,) = locks.held_by(store, T)
    locks.end(store, T, hold)
    with pytest.raises(LockLost):
        operation.leave()
    assert not locks.held_by(store, S)


def test_a_long_wait_is_logged_and_a_short_one_not(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fleet.locks")
    with guard_of(store).operation("write_file"):
        pass
    assert not caplog.records
    lock = SessionLock(store, "s", "b")
    lock.acquire()
    later = threading.Timer(0.3, lock.release)
    later.start()
    with guard_of(store).operation("write_file"):
        pass
    later.join()
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "write_file" in record.message
    assert " ms" in record.message


def test_a_wait_in_vain_is_a_warning(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with SessionLock(store, "s", "b"), pytest.raises(LockBusy):
        guard_of(store, wait_s=0.1).operation("write_file").enter()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


class TestStoreDown:
    def test_closed_refuses(self, nobody: Store) -> None:
        called = False
        with pytest.raises(StoreUnavailable), guard_of(nobody).operation("read_file"):
            called = True
        assert not called
        assert issubclass(StoreUnavailable, BrokerUnavailable)

    def test_open_lets_through_and_says_so_once_a_minute(
        self, nobody: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(3):
            with guard_of(nobody, on_store_down="open").operation("write_file") as operation:
                assert not operation.lost
        (said,) = caplog.records
        assert said.levelno == logging.ERROR
        assert "WITHOUT LOCKS" in said.message
        monkeypatch.setattr(guard, "OPEN_LOGGED_EVERY_S", 0.0)
        with guard_of(nobody, on_store_down="open").operation("write_file"):
            pass
        assert "3 since" in caplog.records[-1].message

    def test_open_does_not_let_through_what_is_busy(self, store: Store) -> None:
        with SessionLock(store, "s", "b"), pytest.raises(LockBusy):
            guard_of(store, wait_s=0.0, on_store_down="open").operation("read_file").enter()

    def test_a_store_that_goes_away_between_the_locks(
        self, store: Store, nobody: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The lock that was taken is given back in either case."""
        for on_store_down in ("closed", "open"):
            half = ConcurrencyGuard(
                SessionLock(store, "s", "a"),
                TurnRWLock(nobody, "a"),
                OperationClassifier(),
                on_store_down,
            )
            operation = half.operation("write_file")
            if on_store_down == "closed":
                with pytest.raises(StoreUnavailable):
                    operation.enter()
            else:
                with operation:
                    assert locks.held_by(store, S)
            assert not locks.held_by(store, S)

    def test_another_value_is_refused_at_once(self, store: Store) -> None:
        with pytest.raises(ConfigError, match=r"locks\.on_store_down: 'local'"):
            guard_of(store, on_store_down="local")

    def test_a_call_outlives_an_outage_and_the_locks_are_given_back_after_it(
        self, tmp_path: Path
    ) -> None:
        server = Valkey(tmp_path).start()
        store = open_store(server.url, socket_timeout_s=0.3)
        try:
            with guard_of(store).operation("write_file"):
                server.pause()
            server.resume()
            wait_until(lambda: not locks.held_by(store, S) and not locks.held_by(store, T))
        finally:
            server.kill()
            store.close()


class TestAsync:
    def test_an_operation(self, store: Store) -> None:
        async def calls() -> None:
            async with guard_of(store).operation("write_file") as operation:
                assert not operation.lost
                with pytest.raises(LockBusy):
                    async with guard_of(store, "b", wait_s=0.1).operation("read_file"):
                        pass

        asyncio.run(calls())
        assert not locks.held_by(store, S)

    def test_a_cancelled_wait_for_the_second_gives_back_the_first(self, store: Store) -> None:
        async def calls() -> None:
            waiting = asyncio.create_task(guard_of(store).operation("write_file").__aenter__())
            await asyncio.to_thread(wait_until, lambda: bool(locks.in_line(store, T)))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not locks.in_line(store, T)
            assert not locks.held_by(store, S)

        with TurnRWLock(store, "a").read():
            asyncio.run(calls())
