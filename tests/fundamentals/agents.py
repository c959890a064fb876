"""The agents of these tests: plain functions, as anybody would write them.

Each turn writes down when it begins and when it ends, for the test to read.
"""

import functools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fleet.ledger import Failure, FailureStage
from fleet.turn.turn import Turn, TurnFailed
from tests.fixtures.agents import note, wait_for_gate

#: A stuck turn of the last two agents has so long.
TIMEOUT_S, HARD_LIMIT_MARGIN_S = 2, 1


def written_down(agent: Callable[[Turn], str]) -> Callable[[Turn], str]:
    """Note the beginning and the end of each turn in a diary beside `fleet.toml`."""

    @functools.wraps(agent)
    def turn_of(turn: Turn) -> str:
        note(turn, "start")
        answer = agent(turn)
        note(turn, "end")
        return answer

    return turn_of


@written_down
def echo(turn: Turn) -> str:
    """Answer at once."""
    return f"You said: {turn.text}"


@written_down
def patient(turn: Turn) -> str:
    """Wait until the test lets the turn go on."""
    wait_for_gate("go")
    return f"done: {turn.text}"


@written_down
def stepwise(turn: Turn) -> str:
    """Make two calls, each a step of its own, with a wait between them."""
    draft = turn.step("draft", turn.text, lambda: paid_call(turn, "draft"))
    wait_for_gate("go")
    return str(turn.step("polish", draft, lambda: paid_call(turn, "polish")))


@written_down
def side_by_side(turn: Turn) -> str:
    """Make two calls in threads; each attempt begins them in another order."""

    def right() -> str:
        wait_for_gate("go")
        return paid_call(turn, "right")

    calls = {"left": lambda: paid_call(turn, "left"), "right": right}
    order = list(calls) if turn.claim.attempt % 2 else list(reversed(calls))
    with ThreadPoolExecutor() as pool:
        found = {name: pool.submit(turn.step, name, turn.text, calls[name]) for name in order}
    return ", ".join(found[name].result() for name in calls)


def paid_call(turn: Turn, name: str) -> str:
    """Stand for a call of a model: each one costs money, so the test counts them."""
    note(turn, f"call {name}")
    return f"{name} of {turn.text}"


@written_down
def fragile(turn: Turn) -> str:
    """Fail in a way that may pass, until the test mends what is broken."""
    if Path("mended").exists():
        return "at last"
    raise TurnFailed(
        Failure(stage=FailureStage.TOOL, reason="the disk is full", retryable=True, kind="DiskFull")
    )


@written_down
def hopeless(turn: Turn) -> str:
    """Fail in a way that no second attempt can mend."""
    raise TurnFailed(
        Failure(stage=FailureStage.TOOL, reason="no such file", retryable=False, kind="NoSuchFile")
    )


@written_down
def deadly(turn: Turn) -> str:
    """Kill the process that runs the turn."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@written_down
def stuck(turn: Turn) -> str:
    """Wait for a byte that never comes, as for a provider that hangs."""
    one, other = socket.socketpair()
    with one, other:
        return one.recv(1).decode()


@written_down
def stubborn(turn: Turn) -> str:
    """Ignore everything that is raised to stop the turn."""
    while True:
        try:
            time.sleep(60)
        except BaseException as error:  # noqa: BLE001 - the point of this agent
            note(turn, f"ignored {type(error).__name__}")


@written_down
def hands_on(turn: Turn) -> str:
    """Run a program, perhaps in a session of its own, and wait for its end, which never comes."""
    if turn.text == "nothing":
        return "done"
    program = subprocess.Popen(["sleep", "1000"], start_new_session=turn.text == "session")
    Path("program.pid").write_text(str(program.pid))
    program.wait()
    return "never"


RETRY = {"attempts": 3, "backoff_s": 0, "min_age_s": 0}
#: Their tables in `fleet.toml`, beside `runner` and `python`.
TABLES: dict[str, dict[str, object]] = {
    "echo": {},
    "patient": {"max_pending": 10},
    "stepwise": {},
    "side_by_side": {},
    "hands_on": {},
    "fragile": {"retry": RETRY},
    "hopeless": {"retry": RETRY},
    "deadly": {},
    "stuck": {"timeout_s": TIMEOUT_S},
    "stubborn": {"timeout_s": TIMEOUT_S},
}
