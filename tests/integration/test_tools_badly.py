"""Tools that misbehave, in a real worker: whatever they do, the agent's slot is free again."""

import json
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tasks.tools.calls import ABANDONED_MAX
from tests.fakes.provider import Provider
from tests.fixtures.bad_tools import LOG
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.marks import LITELLM_WARNINGS
from tests.fixtures.processes import gone, wait_until

pytestmark = LITELLM_WARNINGS

#: For all that a tool starts on a busy machine.
TIMEOUT_S = 0.8


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Fleet]:
    archie = {
        "runner": "llm",
        "model": "openai/script",
        "params": {"api_base": provider.url, "api_key": "k"},
        "tools": ["bad"],
        "timeout_s": 20,
    }
    brief = {**archie, "tools": ["patient"], "timeout_s": 2}
    bad = {"python": "tests.fixtures.bad_tools:bad", "timeout_s": TIMEOUT_S}
    sections = {"tools.bad": bad, "tools.patient": {**bad, "timeout_s": 30}}
    folder = tmp_path_factory.mktemp("fleet")
    with fleet_of(folder, {"archie": archie, "brief": brief}, sections=sections) as fleet:
        fleet.ready("archie", "brief")
        yield fleet


def send(fleet: Fleet, *calls: list[Any]) -> str:
    return fleet.send("archie", json.dumps([list(calls)]))


def told(fleet: Fleet, dispatch_id: str) -> list[str]:
    """The results of a completed turn's tools for the model."""
    fleet.wait_state(dispatch_id, "completed")
    journal = fleet.books.ledger.steps(dispatch_id)
    steps = [json.loads(journal[number]) for number in sorted(journal, key=int)]
    return [step["result"] for step in steps if step["name"].startswith("tool ")]


def noted(fleet: Fleet, tool: str) -> list[list[int]]:
    """For each call of a tool the process that ran it, and what it has started."""
    path = fleet.folder / LOG
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line[1:] for line in lines if line[0] == tool]


def test_what_hangs_is_gone_with_its_turn(fleet: Fleet) -> None:
    """More of it than one process bears, and with all that it has started."""
    calls = [["read_hang", {}], ["read_hang", {}], ["write_hang", {}]]
    hung = [send(fleet, *calls) for _ in range(ABANDONED_MAX // len(calls) + 1)]
    last = send(fleet, ["read_pid", {}])
    (pid,) = told(fleet, last)
    for dispatch_id in hung:
        texts = told(fleet, dispatch_id)
        assert all(f"took longer than {TIMEOUT_S:g} s" in text for text in texts), texts
        assert fleet.books.ends(dispatch_id) == ["dispatch_completed"]
        record = fleet.books.record(dispatch_id)
        assert (record["attempt"], record["losses"]) == ("1", "0")
    ran = noted(fleet, "read_hang")
    processes = {process for process, *_ in ran}
    assert (len(ran), len(processes)) == (len(hung) * len(calls), len(hung))
    assert int(pid) not in processes
    wait_until(lambda: all(gone(one) for call in ran for one in call))
    worker = fleet.processes[0]
    assert worker.children() == [int(pid)]
    # From the end of one turn to the start of the next, with a new process in between.
    records = [fleet.books.record(one) for one in (*hung, last)]
    away_s = [
        (int(later["started_ms"]) - int(one["ended_ms"])) / 1000 for one, later in pairwise(records)
    ]
    assert min(away_s) < 2.0, away_s


def test_what_the_turns_own_limit_cut_off_is_gone_too(fleet: Fleet) -> None:
    before = len(noted(fleet, "read_hang"))
    dispatch_id = fleet.send("brief", json.dumps([[["read_hang", {}]]]))
    assert fleet.wait_state(dispatch_id, "dead")["stage"] == "timeout"
    ((*cut_off,),) = noted(fleet, "read_hang")[before:]
    wait_until(lambda: all(map(gone, cut_off)))
    assert told(fleet, fleet.send("brief", json.dumps([[["read_pid", {}]]]))) != [str(cut_off[0])]


def test_whatever_is_raised_or_printed_is_no_end(fleet: Fleet) -> None:
    odd = [["read_odd", {"name": name}] for name in ("memory", "exit", "odd")]
    texts = told(fleet, send(fleet, *odd, ["read_print", {"megabytes": 1}], ["read_pid", {}]))
    assert [json.loads(text)["error"] for text in texts[:3]] == [
        *("MemoryError: so it goes", "SystemExit: so it goes", "Odd: so it goes")
    ]
    assert texts[3] == "printed"
    # They ended by themselves, so their process goes on.
    assert told(fleet, send(fleet, ["read_pid", {}])) == [texts[4]]


def test_one_that_ends_the_process_is_given_up(fleet: Fleet) -> None:
    dispatch_id = send(fleet, ["write_die", {}])
    behind = send(fleet, ["read_pid", {}])
    record = fleet.wait_state(dispatch_id, "dead")
    assert (record["stage"], record["losses"]) == ("worker_lost", "3")
    assert len(noted(fleet, "write_die")) == 3
    began = time.monotonic()
    told(fleet, behind)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("end", ["replaced", "stopped"])
def test_what_a_call_left_in_good_order_ends_with_its_process(fleet: Fleet, end: str) -> None:
    worker = fleet.processes[0]
    before = len(noted(fleet, "read_daemon"))
    assert told(fleet, send(fleet, ["read_daemon", {}])) == ["left"]
    told(fleet, send(fleet, ["read_pid", {}]))
    ((_, *programs),) = noted(fleet, "read_daemon")[before:]
    assert not any(map(gone, programs))
    if end == "replaced":
        told(fleet, send(fleet, ["read_hang", {}]))
        assert worker.alive
    else:
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    wait_until(lambda: all(map(gone, programs)))
