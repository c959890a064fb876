"""The soft limit: gets through whatever a library catches, once, and never after the turn."""

import importlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.turn.turn import Deadline
from tasks.limits import CallTimeout, call_limit, noted_limit, soft_limit


@pytest.fixture(autouse=True)
def _signals_restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def remind(after_s: float = 0.05) -> threading.Timer:
    """Celery's parent sends the signal from another process, whenever the time comes."""
    timer = threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    return timer


def retry_for_ever() -> None:
    """A client that mistakes a time limit for a network error."""
    while True:
        try:
            time.sleep(1)
        except Exception:  # noqa: BLE001, S112
            continue


def test_gets_through_a_library_that_catches_every_exception() -> None:
    timer = remind()
    with pytest.raises(Deadline), soft_limit():
        retry_for_ever()
    timer.join()


def test_gets_through_a_socket_that_blocks() -> None:
    one, other = socket.socketpair()
    with one, other:
        started = time.monotonic()
        timer = remind()
        with pytest.raises(Deadline), soft_limit():
            one.recv(1)
        timer.join()
        assert time.monotonic() - started < 10


def test_is_raised_once() -> None:
    """A second limit must not interrupt the cleaning up after the first."""
    cleaned = []

    def turn() -> None:
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            os.kill(os.getpid(), signal.SIGUSR1)
            cleaned.append(True)

    with pytest.raises(Deadline), soft_limit():
        turn()
    assert cleaned


def test_does_nothing_after_the_turn() -> None:
    """Celery's own handler raises too, and would tear up the writing of the outcome."""

    def celerys(_number: int, _frame: object) -> None:
        raise AssertionError("raised while the outcome was written")

    signal.signal(signal.SIGUSR1, celerys)
    with soft_limit():
        pass
    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(0)


def test_does_nothing_after_a_turn_that_ran_out_of_time() -> None:
    with pytest.raises(Deadline), soft_limit():
        os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(0)


def test_where_it_is_only_noted_it_raises_nothing() -> None:
    """Also when another thread is there to take the signal, as in every worker."""

    def asked_to_stop() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)

    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    try:
        with soft_limit():
            with noted_limit() as passed:
                assert not passed()
                asked_to_stop()
                assert passed()
            with pytest.raises(Deadline):
                asked_to_stop()
    finally:
        ended.set()
        other.join()


def test_each_turn_has_its_own() -> None:
    for _ in range(3):
        with pytest.raises(Deadline), soft_limit():
            os.kill(os.getpid(), signal.SIGUSR1)


def test_what_a_turn_starts_does_not_inherit_it() -> None:
    """An ignored signal would be inherited by every tool; a handler is not."""
    with soft_limit():
        pass
    assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_IGN


def test_a_call_is_limited_and_the_turn_around_it_too() -> None:
    def turn() -> None:
        with pytest.raises(CallTimeout), call_limit(0.1):
            retry_for_ever()
        with call_limit(60):
            pass
        with call_limit(60):
            retry_for_ever()

    with pytest.raises(Deadline), soft_limit(0.4):
        turn()


def test_a_call_that_ended_in_time_is_not_disturbed_later() -> None:
    with call_limit(0.1):
        pass
    time.sleep(0.2)


def test_a_call_in_another_thread_has_no_limit_and_disturbs_no_turn() -> None:
    def call() -> None:
        with call_limit(0.01):
            time.sleep(0.1)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_an_import_is_not_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_load.py").write_text("import time\ntime.sleep(0.4)\nwhole = True\n")
    monkeypatch.syspath_prepend(tmp_path)

    def call() -> None:
        importlib.import_module("slow_to_load")
        retry_for_ever()

    with pytest.raises(CallTimeout), call_limit(0.1):
        call()
    assert sys.modules.pop("slow_to_load").whole
