"""Running the calls of one message: reads side by side, a write alone, each with a timeout.

Python cannot end a thread. A call that passes its timeout is answered with an error and abandoned.
While an abandoned write runs on, no other write begins; too many abandoned calls refuse all others.
An abandoned call ends with its process, and the process with the turn: see `tasks.dispatch`.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

from fleet.formats.terminal_text import sanitize
from fleet.tools.functions import ToolError
from tasks.execution.faults import place_of
from tasks.limits import THREAD_CALLS

logger = logging.getLogger(__name__)

#: Reads that run side by side.
PARALLEL = 4
#: Calls that a turn has abandoned and that run on.
ABANDONED_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One call, ready to run. `call` returns the text for the model."""

    name: str
    writes: bool
    timeout_s: float
    max_result_bytes: int
    call: Callable[[], str]


def error_text(sentence: str) -> str:
    """An error, as text for the model."""
    return json.dumps({"error": sanitize(sentence)}, ensure_ascii=False)


def run(jobs: Sequence[Job]) -> Iterator[tuple[int, str]]:
    """Each job's place and text as it ends, PARALLEL at a time; raises no job's error."""
    done: SimpleQueue[tuple[int, str]] = SimpleQueue()
    waiting, ends_at = deque(enumerate(jobs)), dict[int, float]()
    while waiting or ends_at:
        while waiting and len(ends_at) < PARALLEL:
            place, job = waiting.popleft()
            if refusal := _refusal(job, len(ends_at)):
                yield place, error_text(refusal)
                continue
            ends_at[place] = time.monotonic() + job.timeout_s
            _start(job, place, done)
        if not ends_at:
            continue
        try:
            place, text = done.get(timeout=max(0.0, min(ends_at.values()) - time.monotonic()))
        except Empty:
            place = min(ends_at, key=lambda number: ends_at[number])
            late = f"{jobs[place].name} took longer than {jobs[place].timeout_s:g} s"
            logger.warning("%s and is abandoned", late)
            text = error_text(late)
        # An abandoned job may still end; its text is dropped.
        if ends_at.pop(place, None) is not None:
            yield place, text


def groups(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """The jobs in order: neighbouring reads together, each write alone."""
    together: list[Job] = []
    for job in jobs:
        if not job.writes:
            together.append(job)
            continue
        if together:
            yield together
            together = []
        yield [job]
    if together:
        yield together


def cut(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, without a terminal's codes; a note replaces the rest."""
    # A character has a byte at least, so the rest need not be encoded.
    whole = sanitize(text[: limit + 1]).encode("utf-8", "replace")
    if len(text) <= limit and len(whole) <= limit:
        return whole.decode()
    note = f"\n[cut: the result had {len(text)} characters, {limit} bytes are allowed]"
    room = max(0, limit - len(note))
    return whole[:room].decode(errors="ignore") + note


def _refusal(job: Job, mine: int) -> str:
    abandoned_calls = THREAD_CALLS.running - mine
    if abandoned_calls >= ABANDONED_MAX:
        return (
            f"{abandoned_calls} earlier calls took too long and still run: {job.name} was not begun"
        )
    if job.writes and THREAD_CALLS.writing:
        return f"an earlier write took too long and still runs: {job.name} was not begun"
    return ""


def _start(job: Job, place: int, done: SimpleQueue[tuple[int, str]]) -> None:
    token = THREAD_CALLS.begin(writes=job.writes)

    def work() -> None:
        try:
            text = cut(job.call(), job.max_result_bytes)
        except ToolError as error:
            text = cut(error_text(str(error)), job.max_result_bytes)
        except BaseException as error:  # noqa: BLE001 - the model gets every error of a tool
            where = place_of(error) or "a place outside the tools' own code"
            logger.warning("%s raised %s at %s", job.name, type(error).__name__, where)
            text = cut(error_text(f"{type(error).__name__}: {error}"), job.max_result_bytes)
        THREAD_CALLS.end(token)
        done.put((place, text))

    Thread(target=work, name=f"tool {job.name}", daemon=True).start()
