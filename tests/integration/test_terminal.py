"""Real programs in real terminals, and the runner that types to them, without a worker."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery.signals import worker_process_shutdown

from fleet.config.terminal import TerminalConfig as Terms
from fleet.delivery.throttle import Throttle
from fleet.errors import BrokerUnavailable
from fleet.ledger import Claim, Runs
from fleet.store import Store
from fleet.turn.live_text import BEGINNING, LiveText, subscribe
from fleet.turn.turn import Turn, TurnFailed
from tasks.runners.pty import PtyRunner
from tasks.terminal import terminal as terminals
from tasks.terminal.program import TerminalProgram
from tasks.terminal.terminal import AnswerFailed, InputRejected, Terminal, TypedEvent
from tests.fixtures import interactive
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.processes import gone, no_leftovers

__all__ = ["no_leftovers"]

pytestmark = pytest.mark.usefixtures("no_leftovers")

PATH = str(Path(interactive.__file__))
READY = "ready> $"
LIMIT = 100_000

Open = Callable[..., Terminal]
Run = Callable[[str], Terminal]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens a terminal with the program in some mode; its programs end with the test."""
    programs: list[TerminalProgram] = []

    def make(mode: str, **terms: Any) -> Terminal:
        environment = {**os.environ, "TERM": "xterm-256color"}
        command = [sys.executable, PATH, mode]
        programs.append(TerminalProgram(command, cwd=str(tmp_path), environment=environment))
        return Terminal(programs[-1], Terms(**terms), LIMIT)

    yield make
    for program in programs:
        program.stop()
        assert gone(program.pid)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Run]:
    """Opens a terminal without a pattern, with a shell's program; it ends with the test."""
    programs: list[TerminalProgram] = []

    def make(script: str) -> Terminal:
        environment = {**os.environ, "TERM": "xterm-256color"}
        command = ["/bin/sh", "-c", script]
        programs.append(TerminalProgram(command, cwd=str(tmp_path), environment=environment))
        return Terminal(programs[-1], Terms(quiet_s=0.4, echo_s=1.0), LIMIT)

    yield make
    for program in programs:
        program.stop()


def go_on() -> None:
    pass


def ask(terminal: Terminal, text: str) -> tuple[TypedEvent, str]:
    terminal.await_input(go_on)
    handed = terminal.submit(text, go_on)
    return handed, terminal.await_answer(handed, go_on)


def test_nothing_is_typed_before_it_is_ready(opened: Open) -> None:
    handed, answer = ask(opened("slow", ready=READY), "measure this")
    assert (handed.echoed, answer) == (True, "MEASURE: 4")


def test_without_a_pattern_it_waits_for_silence(opened: Open) -> None:
    terminal = opened("slow", quiet_s=0.8)
    assert ask(terminal, "measure this")[1] == "MEASURE: 4"
    # Silence before the first word of an answer ends nothing.
    assert ask(terminal, "after 1.2")[1] == "waited"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("read line; echo got $line", "got a word"),
        ("read line; exit 0", ""),
        ("stty -echo; read line; exit 0", ""),
        ("while read line; do sleep 1; echo late $line; done", "late a word"),
    ],
)
def test_without_a_pattern_a_program_may_end_or_print_at_its_end(
    running: Run, program: str, said: str
) -> None:
    assert ask(running(program), "a word")[1] == said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a program waits for")
@pytest.mark.parametrize("echo", ["", "stty -echo;"])
def test_without_a_pattern_a_program_may_read_on_and_print_nothing(
    running: Run, tmp_path: Path, echo: str
) -> None:
    terminal = running(f"{echo} while read line; do sleep 1; echo $line >> kept; done")
    assert [ask(terminal, text)[1] for text in ("one", "two")] == ["", ""]
    assert (tmp_path / "kept").read_text() == "one\ntwo\n"
    assert terminal.program.ending is None


def test_without_a_pattern_a_program_that_fails_has_not_answered(running: Run) -> None:
    with pytest.raises(AnswerFailed, match="exit code 3 while it had the event"):
        ask(running("read line; sleep 0.5; exit 3"), "a word")


def test_a_full_screen_is_read_and_several_lines_are_one_paste(opened: Open) -> None:
    terminal = opened("screen", ready="idle, type away$")
    handed, answer = ask(terminal, "count")
    assert (handed.echoed, answer.split(" in ")[0]) == (True, "1")
    handed, answer = ask(terminal, "measure\nthis twice")
    assert (handed.echoed, answer) == (True, "MEASURE: 10")


@pytest.mark.parametrize(
    ("mode", "terms", "why"),
    [
        ("restless", {"start_s": 0.5}, "it was not ready for input within 0.5 s"),
        ("unknown", {}, "it ended with exit code 1 before it was ready for input"),
    ],
)
def test_a_program_that_is_never_ready(
    opened: Open, mode: str, terms: dict[str, Any], why: str
) -> None:
    with pytest.raises(InputRejected) as failed:
        opened(mode, quiet_s=0.2, **terms).await_input(go_on)
    assert str(failed.value) == why


def test_a_program_that_reads_nothing_does_not_block(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminals, "WRITE_S", 0.2)
    terminal = opened("deaf", ready=READY)
    terminal.await_input(go_on)
    with pytest.raises(InputRejected, match=r"it took no input for 0\.2 s"):
        terminal.submit("x" * 200_000, go_on)


class Turns:
    """Turns of an agent `a`, one after the other, on a real ledger."""

    def __init__(self, store: Store, **options: Any) -> None:
        agent = {"runner": "pty", "command": [sys.executable, PATH, "lines"], **options}
        self.books = Books(store, settings_for("a", **agent))
        self.lease = self.books.held()
        self.runner = PtyRunner()

    def next(self, text: str = "") -> Turn:
        """The turn of a new event; without a text, of the one whose turn was lost."""
        if text:
            self.books.accept(text=text)
        claim = self.books.claimed(self.lease)
        agent = self.books.settings.agents["a"]
        speech = LiveText(self.books.store, claim) if agent.stream else None
        deadline = time.monotonic() + 30
        return Turn(
            claim=claim, agent=agent, deadline=deadline, ledger=self.books.ledger, live_text=speech
        )


@pytest.fixture
def turns(store: Store, tmp_path: Path) -> Iterator[Callable[..., Turns]]:
    made: list[Turns] = []

    def make(**options: Any) -> Turns:
        made.append(Turns(store, cwd=str(tmp_path), terminal={"ready": READY}, **options))
        return made[-1]

    yield make
    for one in made:
        worker_process_shutdown.send(sender=None)
        worker_process_shutdown.disconnect(one.runner._shutdown)


def test_the_throttle_learns_from_each_delivery(turns: Callable[..., Turns]) -> None:
    mine, began = turns(command=["false"]), time.monotonic()
    for _ in range(3):
        turn = mine.next("hello")
        with pytest.raises(TurnFailed, match="did not take the event: it ended with exit code 1"):
            mine.runner.run(turn)
        mine.books.complete(turn.claim)
    assert mine.runner.throttle == Throttle(500, 3)
    assert time.monotonic() - began >= 0.1 + 0.2


class Away:
    """A ledger whose store goes away just before a step is kept."""

    def __init__(self, ledger: Runs, key: str) -> None:
        self._ledger, self._key = ledger, key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def step(self, claim: Claim, key: str, entry: str, *more: Any, **named: Any) -> str:
        if key == self._key:
            raise BrokerUnavailable("away")
        return self._ledger.step(claim, key, entry, *more, **named)


@pytest.mark.parametrize("step", ["2", "1"])
def test_an_event_is_typed_once_though_its_step_was_not_kept(
    turns: Callable[..., Turns], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """`2` is that it was typed, `1` the answer."""
    monkeypatch.setattr("fleet.turn.turn.JOURNAL_TIMEOUT_S", 0)
    mine = turns()
    first = mine.next("measure this")
    first.ledger = Away(first.ledger, step)
    with pytest.raises(BrokerUnavailable):
        mine.runner.run(first)
    second = mine.next()
    assert (second.claim.attempt, mine.runner.run(second)) == (2, "MEASURE: 4")
    mine.books.complete(second.claim)
    assert len((tmp_path / interactive.TYPED).read_text().splitlines()) == 1
    assert mine.runner.run(mine.next("measure more")) == "MEASURE: 4"


def test_what_it_says_is_heard_while_it_says_it(turns: Callable[..., Turns]) -> None:
    mine = turns(stream=True)
    turn = mine.next("recite")
    assert turn.live_text
    with closing(turn.live_text):
        assert mine.runner.run(turn) == "one\ntwo\nthree"
    heard = subscribe(mine.books.store, {turn.claim.dispatch_id: BEGINNING})[turn.claim.dispatch_id]
    assert "".join(piece.text for piece in heard.pieces) == "one\ntwo\nthree"
    assert heard.pieces[0].text in ("one\n", "one\ntwo\n")
