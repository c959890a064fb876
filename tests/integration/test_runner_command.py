"""A program as an agent, in a real worker: whatever it does, the slot is free again."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.ledger import operations
from fleet.store import keys
from tests.fixtures.fleet import READY, Fleet, fleet_of
from tests.fixtures.processes import gone, wait_until

#: What the text on its standard input tells it to do.
PROGRAM = r"""
import os, signal, subprocess, sys, time
first = sys.stdin.readline()
if first == "deaf\n":
    print("heard enough")
    sys.exit(0)
text = first + sys.stdin.read()
what, _, rest = text.partition(" ")
print("\x1b[1m", end="")
if what == "say":
    print(rest)
elif what == "env":
    print(os.environ.get(rest, "unset"))
elif what == "complain":
    sys.stderr.write("x" * 300_000 + "\nthe last " + rest + "\n")
    sys.exit(3)
elif what == "grumble":
    os.close(1)
    print(rest, file=sys.stderr, flush=True)
    time.sleep(600)
elif what == "chatter":
    os.close(1)
    sys.stderr.write("x" * 300_000)
    os._exit(0)
elif what == "exit":
    sys.exit(int(rest))
elif what == "flood":
    while True:
        print("x" * 10000)
elif what == "sleep":
    open(rest, "w").write(str(os.getpid()))
    time.sleep(600)
elif what == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(rest, "w").write(str(os.getpid()))
    time.sleep(600)
elif what == "mute":
    open(rest, "w").write(str(os.getpid()))
    os.close(1)
    time.sleep(600)
elif what == "hush":
    print("all there is to say", flush=True)
    os.close(1)
    time.sleep(0.5)
    open(rest, "w").write(str(os.getpid()))
    os._exit(0)
elif what == "daemon":
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            open(rest, "w").write(str(os.getpid()))
            time.sleep(600)
        os._exit(0)
    os.wait()
    while not os.path.exists(rest):
        time.sleep(0.01)
    print("a daemon holds the pipe")
elif what == "hide":
    hidden = "(setsid env -i sleep 600 </dev/null >/dev/null 2>&1 & echo $!)"
    found = subprocess.run(["sh", "-c", hidden], capture_output=True, text=True)
    open(rest, "w").write(found.stdout)
    print("it has no mark")
elif what == "leave":
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    open(rest, "w").write(str(child.pid))
    print("left one behind")
elif what == "count":
    with open(rest, "a") as log:
        log.write("run\n")
    print("counted")
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    program = folder / "program.py"
    program.write_text(PROGRAM)
    common: dict[str, Any] = {
        "runner": "command",
        "command": [sys.executable, str(program)],
        "max_output_bytes": 100_000,
    }
    env = {"GIVEN": "a gift", "OURS": "$SOME_TOKEN"}
    agents = {
        "tool": {**common, "timeout_s": 30, "env": env},
        "without": {**common, "env": {"TOKEN": "$NOT_SET"}},
        "quick": {**common, "timeout_s": 1.5},
        "nowhere": {**common, "command": ["no-such-program"]},
    }
    with fleet_of(folder, agents, hard_limit_margin_s=20) as fleet:
        secrets = {"SOME_API_KEY": "mine", "DATABASE_URL": "mine", "SOME_TOKEN": "ours"}
        for worker in [fleet.worker(name, **secrets) for name in ("tool", "quick", "without")]:
            worker.wait_said(READY)
        yield fleet


def answer(fleet: Fleet, text: str) -> str:
    dispatch_id = fleet.send("tool", text)
    fleet.wait_state(dispatch_id, "completed")
    return str(fleet.books.store.client.get(keys.outcome(dispatch_id)))


def failure(fleet: Fleet, agent: str, text: str) -> tuple[str, str]:
    record = fleet.wait_state(fleet.send(agent, text), "dead")
    return record["stage"], record["error"]


def pid_in(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text() != "", 20)
    return int(path.read_text())


def test_what_it_prints_is_the_answer(fleet: Fleet) -> None:
    assert answer(fleet, "say good morning") == "good morning"
    long = "word " * 40_000  # more than a pipe holds
    assert fleet.wait_state(fleet.send("tool", f"exit 0 {long}"), "dead")["stage"] == "tool"
    assert answer(fleet, "say " + "y" * 90_000) == "y" * 90_000


def test_it_learns_who_it_is_and_no_secret_of_the_fleet(fleet: Fleet) -> None:
    assert answer(fleet, "env TURN_AGENT") == "tool"
    assert answer(fleet, "env TURN_HOPS") == "0"
    assert answer(fleet, "env FLEET_CONFIG") == "unset"


def test_of_the_workers_environment_it_gets_what_its_table_names(fleet: Fleet) -> None:
    names = ("SOME_API_KEY", "DATABASE_URL", "SOME_TOKEN", "GIVEN", "OURS")
    assert [answer(fleet, f"env {name}") for name in names] == [
        *["unset"] * 3,
        "a gift",
        "ours",
    ]
    assert answer(fleet, "env PATH") == os.environ["PATH"]


def test_a_variable_that_the_worker_does_not_have_fails_the_turn(fleet: Fleet) -> None:
    assert failure(fleet, "without", "say it") == (
        "tool",
        "agents.without.env: the worker has no variable NOT_SET",
    )


def test_a_failing_program_says_how_it_ended(fleet: Fleet) -> None:
    assert failure(fleet, "tool", "exit 3") == ("tool", "the command ended with exit code 3")


def test_the_last_words_of_a_failing_program_are_kept_for_those_who_may_see_them(
    fleet: Fleet,
) -> None:
    complains = fleet.send("tool", "complain word")
    assert "word" not in fleet.wait_state(complains, "dead")["error"]
    said = fleet.last_words(complains)
    assert said.endswith("x\nthe last word")
    assert len(said) <= 4096
    hangs = fleet.send("quick", "grumble about it")
    assert fleet.wait_state(hangs, "dead")["stage"] == "timeout"
    assert fleet.last_words(hangs) == "about it"
    assert answer(fleet, "chatter") == ""
    assert "about it" not in "".join(worker.said() for worker in fleet.processes)


def test_a_program_that_never_stops_printing_is_cut_off(fleet: Fleet) -> None:
    stage, reason = failure(fleet, "tool", "flood")
    assert (stage, reason) == (
        "tool",
        "the command printed more than 100000 bytes (max_output_bytes)",
    )


def test_one_that_reads_little_of_its_input_may(fleet: Fleet) -> None:
    assert answer(fleet, "deaf\n" + "x" * 500_000) == "heard enough"


def test_one_that_closes_its_output_may_go_on(fleet: Fleet, tmp_path: Path) -> None:
    note = tmp_path / "end"
    assert answer(fleet, f"hush {note}") == "all there is to say"
    assert note.exists()


@pytest.mark.parametrize("how", ["sleep", "stubborn", "mute"])
def test_the_time_limit_ends_the_program(fleet: Fleet, tmp_path: Path, how: str) -> None:
    note = tmp_path / "pid"
    stage, _ = failure(fleet, "quick", f"{how} {note}")
    assert stage == "timeout"
    assert gone(pid_in(note))


def test_cancelling_at_once_ends_the_program(fleet: Fleet, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    dispatch_id = fleet.send("tool", f"sleep {note}")
    pid = pid_in(note)
    operations.cancel(fleet.books.ledger, fleet.settings, dispatch_id, "enough", now=True)
    fleet.wait_state(dispatch_id, "cancelled")
    wait_until(lambda: gone(pid), 20)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("leave", "left one behind"),
        ("daemon", "a daemon holds the pipe"),
        ("hide", "it has no mark"),
    ],
)
def test_what_it_leaves_behind_is_killed(fleet: Fleet, tmp_path: Path, how: str, said: str) -> None:
    note = tmp_path / "pid"
    assert answer(fleet, f"{how} {note}") == said
    wait_until(lambda: gone(pid_in(note)))


def test_a_program_that_had_ended_is_not_run_again(fleet: Fleet, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    dispatch_id = fleet.send("tool", f"count {log}")
    fleet.wait_state(dispatch_id, "completed")
    assert log.read_text() == "run\n"
    (step,) = fleet.books.ledger.steps(dispatch_id).values()
    assert '"counted"' in step


def test_a_killed_worker_leaves_no_program_and_its_turn_runs_again(
    fleet: Fleet, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    dispatch_id = fleet.send("tool", f"sleep {note}")
    first = pid_in(note)
    worker = next(process for process in fleet.processes if process.log.name.startswith("tool"))
    (child,) = worker.children()
    note.unlink()
    os.kill(child, 9)
    second = pid_in(note)
    assert second != first
    wait_until(lambda: gone(first), 20)
    operations.cancel(fleet.books.ledger, fleet.settings, dispatch_id, "enough", now=True)
    fleet.wait_state(dispatch_id, "cancelled")


def test_a_program_that_is_not_there_is_no_reason_to_try_again(fleet: Fleet) -> None:
    (worker,) = fleet.ready("nowhere")
    stage, reason = failure(fleet, "nowhere", "say x")
    assert stage == "tool"
    assert reason.startswith("no-such-program cannot be used")
    assert worker.alive
