"""The calls of one message: side by side or alone, and never without an end."""

import json
from collections.abc import Callable, Iterator
from threading import Barrier, Event, Lock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.formats.terminal_text import sanitize
from tasks.limits import THREAD_CALLS
from tasks.tools.calls import ABANDONED_MAX, PARALLEL, Job, cut, groups, run
from tests.fixtures.processes import wait_until


def job(call: Callable[[], str], *, writes: bool = False, timeout_s: float = 30.0) -> Job:
    return Job(name="t", writes=writes, timeout_s=timeout_s, max_result_bytes=1000, call=call)


def texts(*jobs: Job) -> list[str]:
    found = dict(run(jobs))
    return [found[place] for place in range(len(jobs))]


@pytest.fixture
def gate() -> Iterator[Event]:
    """A gate that ends hanging calls with their test."""
    gate = Event()
    yield gate
    gate.set()
    wait_until(lambda: not THREAD_CALLS.running)


def hang(gate: Event) -> Callable[[], str]:
    return lambda: str(gate.wait(60))


def test_reads_run_side_by_side() -> None:
    barrier = Barrier(PARALLEL)
    assert texts(*[job(lambda: str(barrier.wait(30) >= 0))] * PARALLEL) == ["True"] * PARALLEL


def test_no_more_than_so_many_at_once() -> None:
    lock, now, most = Lock(), 0, 0

    def count() -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1
        return ""

    texts(*[job(count)] * 100)
    assert 1 <= most <= PARALLEL


@given(st.lists(st.booleans()))
def test_a_write_is_alone_and_the_order_stays(writes: list[bool]) -> None:
    jobs = [job(str, writes=one) for one in writes]
    found = list(groups(jobs))
    assert [id(one) for group in found for one in group] == [id(one) for one in jobs]
    assert all(len(group) == 1 for group in found if any(one.writes for one in group))


def test_what_a_tool_raises_is_told() -> None:
    def leave() -> str:
        raise SystemExit(3)

    def fail() -> str:
        raise RuntimeError("no such table")

    assert [json.loads(text)["error"] for text in texts(job(leave), job(fail))] == [
        *("SystemExit: 3", "RuntimeError: no such table")
    ]


def test_what_hangs_is_left_behind_and_the_others_go_on(gate: Event) -> None:
    hung, fine = texts(job(hang(gate), timeout_s=0.05), job(lambda: "fine"))
    assert json.loads(hung) == {"error": "t took longer than 0.05 s"}
    assert fine == "fine"


def test_no_write_begins_while_an_earlier_one_goes_on(gate: Event) -> None:
    texts(job(hang(gate), writes=True, timeout_s=0.05))
    assert "earlier write" in texts(job(lambda: "written", writes=True))[0]
    assert texts(job(lambda: "read")) == ["read"]
    gate.set()
    wait_until(lambda: not THREAD_CALLS.running)
    assert texts(job(lambda: "written", writes=True)) == ["written"]


def test_too_many_that_hang_stop_all_calls(gate: Event) -> None:
    texts(*[job(hang(gate), timeout_s=0.05)] * ABANDONED_MAX)
    assert "took too long" in texts(job(lambda: "fine"))[0]


@given(st.text(), st.integers(min_value=256, max_value=1000))
def test_what_is_short_stays_whole(text: str, limit: int) -> None:
    short = text[: limit // 4]
    assert cut(short, limit) == sanitize(short)


@pytest.mark.parametrize("char", ["x", "é", "😀", "\ud800"])
def test_what_is_long_is_cut_with_a_note(char: str) -> None:
    found = cut(char * 10_000_000, 1000)
    assert len(found.encode()) <= 1000
    assert "10000000 characters, 1000 bytes are allowed" in found
