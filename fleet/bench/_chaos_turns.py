"""The turn of a chaos run: a few model calls over real HTTP, and a diary that survives its death.

The text of an event is `<steps> <seconds of each call>`, optionally with `fail`: then the provider
refuses the last call of the first attempt, and the dispatch is retried.

The diary is one file. All turns of a run append to it, each line by one `write`, so lines never mix
and a SIGKILL loses no written line. A thread of each turn writes a line every `ALIVE_S`, so the
last line is close to the turn's end, whatever caused it.
"""

import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from celery import current_task

from fleet.bench._auditor import OFFLINE, WORKER, RunMark
from fleet.ledger import Failure, FailureStage
from fleet.turn.turn import Turn, TurnFailed

#: The variable with the path of the diary.
DIARY = "BENCH_DIARY"
#: The variable with the provider's port on loopback.
PROVIDER = "BENCH_PROVIDER_PORT"

ALIVE_S = 0.05
#: How late a call may return.
LATE_S_MAX = 30.0


def calls(turn: Turn) -> str:
    """Make the calls that the event's text describes; each is a journalled step."""
    steps, seconds, *rest = turn.text.split(" ")
    with diary(turn) as write:
        for number in range(1, int(steps) + 1):
            fails = rest == ["fail"] and turn.claim.attempt == 1 and number == int(steps)
            call = partial(request, turn, number, float(seconds), fails=fails)
            turn.step("ask", {"number": number}, call)
            write("kept", number)
        write("done")
    return turn.claim.dispatch_id


def request(turn: Turn, number: int, seconds: float, *, fails: bool = False) -> str:
    """Make a call of `seconds`. Raises TurnFailed when the provider refuses it, or OSError."""
    name = f"{turn.claim.dispatch_id}/{number}/{turn.claim.attempt}"
    body = {"name": name, "seconds": seconds, "fails": fails}
    port = int(os.environ[PROVIDER])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds + LATE_S_MAX)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body).encode())
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != http.HTTPStatus.OK:
            raise TurnFailed(Failure(stage=FailureStage.LLM, reason="refused", retryable=True))
        return str(answer["choices"][0]["message"]["content"])
    finally:
        connection.close()


def read_diary(path: Path) -> list[RunMark]:
    """Read the diary, in the order of writing."""
    marks = []
    for line in path.read_text().splitlines():
        at_ns, kind, agent, session, dispatch_id, attempt, pid, place, step = line.split("\t")
        marks.append(
            RunMark(
                at_ns=int(at_ns),
                kind=kind,
                agent=agent,
                session=session,
                dispatch_id=dispatch_id,
                attempt=int(attempt),
                pid=int(pid),
                place=place,
                step=step,
            )
        )
    return marks


class Diary:
    """A writer of lines about one turn: `write(kind, step)`."""

    def __init__(self, turn: Turn) -> None:
        self._file = os.open(os.environ[DIARY], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        claim = turn.claim
        self._turn_columns = "\t".join(
            (
                claim.agent,
                claim.event.session or "",
                claim.dispatch_id,
                str(claim.attempt),
                str(os.getpid()),
                # Offline execution runs outside of Celery tasks.
                WORKER if bool(current_task) else OFFLINE,
            )
        )
        self.over = threading.Event()

    def __call__(self, kind: str, step: int | str = "") -> None:
        line = f"{time.monotonic_ns()}\t{kind}\t{self._turn_columns}\t{step}\n"
        os.write(self._file, line.encode())

    def live(self) -> None:
        """Write `alive` lines until `over` is set."""
        while not self.over.wait(ALIVE_S):
            self("alive")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


@contextmanager
def diary(turn: Turn) -> Iterator[Diary]:
    """Write a turn's diary within this context."""
    write = Diary(turn)
    write("start")
    living = threading.Thread(target=write.live, daemon=True)
    living.start()
    try:
        yield write
    finally:
        write.over.set()
        living.join()
        write("end")
        write.close()
