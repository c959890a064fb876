"""One breaker for all that share a data folder, and what a call's error means to it."""

import threading
from pathlib import Path

import pytest
import redis
from redis.exceptions import (
    AuthenticationError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from fleet.broker.breaker import Breaker, BreakerOpen
from fleet.config.sections import BreakerConfig

LIMITS = BreakerConfig(failure_threshold=3, reset_timeout_s=30)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_made_while_all_is_well(tmp_path: Path) -> None:
    breaker = Breaker(tmp_path / "data", LIMITS)
    breaker.check()
    assert breaker.name == "closed"
    assert not (tmp_path / "data").exists()


def test_what_one_process_sees_all_see_and_one_asks(tmp_path: Path) -> None:
    clock = Clock()
    one, other = Breaker(tmp_path, LIMITS, clock), Breaker(tmp_path, LIMITS, clock)
    assert other.name == "closed"
    for breaker in (one, other, one):
        assert breaker.name == "closed"
        breaker.record_error(redis.TimeoutError())
    assert (one.name, other.name) == ("open", "open")
    with pytest.raises(BreakerOpen, match="asked again in 30 s"):
        other.check()
    assert one.begin_probe() is None
    clock.now += 31
    assert other.begin_probe() is not None
    assert one.begin_probe() is None
    assert one.name == "half_open"
    other.end_probe(well=True)
    assert one.closed
    one.check()


@pytest.mark.parametrize(
    ("error", "failures"),
    [
        (redis.TimeoutError(), 3),
        (redis.ConnectionError(), 3),
        (OSError(), 3),
        (ReadOnlyError("READONLY"), 3),
        (OutOfMemoryError("OOM"), 3),
        (ResponseError("MISCONF Errors writing to the AOF file"), 3),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), 3),
        (AuthenticationError("WRONGPASS"), 1),
        (ResponseError("WRONGTYPE"), None),
        (BreakerOpen(), None),
    ],
)
def test_what_counts_and_how_much(tmp_path: Path, error: Exception, failures: int | None) -> None:
    breaker = Breaker(tmp_path, LIMITS)
    for _ in range(9 if failures is None else failures - 1):
        breaker.record_error(error)
    assert breaker.closed
    if failures:
        breaker.record_error(error)
        assert not breaker.closed


@pytest.mark.parametrize("left", [b"", b"\1rubbish", b'\1{"boot": "an earlier one"}'])
def test_what_a_kill_or_an_earlier_boot_left_is_closed(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "breaker").write_bytes(left)
    breaker = Breaker(tmp_path, LIMITS)
    assert breaker.closed
    breaker.record_failure("x")
    assert breaker.closed


@pytest.mark.parametrize("damage", [b"\1{", b"\7garbage", b"\1[1]"])
def test_a_file_that_is_damaged_while_it_is_used_keeps_nobody_out(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = Breaker(tmp_path, LIMITS)
    breaker.prepare()
    with (tmp_path / "breaker").open("r+b") as file:
        file.write(damage.ljust(200, b"\0"))
    breaker.check()
    assert breaker.closed
    (kept,) = tmp_path.glob("breaker.damaged-*")
    assert kept.read_bytes().startswith(damage)
    assert "set aside" in caplog.text


def test_a_folder_that_cannot_be_used_leaves_a_breaker_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    breaker = Breaker(tmp_path / "data", LIMITS)
    for _ in range(3):
        breaker.record_failure("x")
    assert not breaker.closed


def test_of_many_at_once_one_asks(tmp_path: Path) -> None:
    clock = Clock()
    breakers = [Breaker(tmp_path, LIMITS, clock) for _ in range(4)]
    for _ in range(3):
        breakers[0].record_failure("x")
    clock.now += 31
    got = []
    start = threading.Barrier(8)

    def ask(breaker: Breaker) -> None:
        start.wait(10)
        got.append(breaker.begin_probe())

    threads = [threading.Thread(target=ask, args=(breakers[n % 4],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in got if one]) == 1
