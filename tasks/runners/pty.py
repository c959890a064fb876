"""Runner `pty`: an interactive program is an agent, and stays in a terminal over its turns.

    [agents.pair]
    runner = "pty"
    command = ["python3", "-q", "-i"]
    terminal = { ready = ">>> $" }

Each event is typed to the program, as a person would. Its output until it waits for input again is
the answer. An event is typed once into one life of the program, whatever becomes of it: without an
echo in time it counts as delivered, unverified. The next turn restarts a program that has died.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import signals

from fleet.config.terminal import TerminalConfig as Terms
from fleet.delivery.throttle import Throttle
from fleet.ledger import Failure, FailureStage
from fleet.ledger.failures import MESSAGE_BYTES_MAX, last_bytes
from fleet.turn.turn import Cancelled, Deadline, Turn, TurnFailed
from tasks.limits import noted_limit
from tasks.runners.turn_input import agent_environment
from tasks.terminal.program import PASSING, TerminalProgram
from tasks.terminal.terminal import (
    AnswerFailed,
    InputRejected,
    OutputTooLarge,
    Terminal,
    TypedEvent,
    Untypeable,
)
from tasks.terminal.text import typeable

logger = logging.getLogger(__name__)

#: The terminal that `tasks.terminal.screen` implements.
TERM = "xterm-256color"
#: A terminal remembers so many events that were typed to it.
_TYPED_MAX = 10_000


@dataclass(slots=True)
class _Life:
    """A running program, and the fate of the events that were typed to it."""

    terminal: Terminal
    typed: deque[str] = field(default_factory=lambda: deque(maxlen=_TYPED_MAX))
    #: The dispatch whose event the program has now.
    busy_with: str = ""
    handed: TypedEvent | None = None
    #: The newest dispatch with its answer: its turn runs again when the answer was not journalled.
    answered: tuple[str, dict[str, Any]] = ("", {})

    def has(self, dispatch_id: str) -> bool:
        """True when the event of this dispatch was typed, and nothing has gone wrong since."""
        typed = self.busy_with == dispatch_id and self.handed is not None
        return typed or self.answered[0] == dispatch_id


class PtyRunner:
    """Keeps the agent's one terminal, in the process that runs its turns."""

    def __init__(self) -> None:
        self._life: _Life | None = None
        #: Of its terminal; outlasts a program's life.
        self.throttle = Throttle()
        self._tried_at = 0.0
        signals.worker_process_shutdown.connect(self._shutdown, weak=False)

    def run(self, turn: Turn) -> str:
        """The program's answer.

        Raises TurnFailed when the program cannot be started, does not accept the event, ends, is
        not done in time, or prints too much.
        """
        text = typeable(turn.prompt)
        if not text:
            raise _failed("the event has no text that can be typed", retryable=False)
        request = {"command": list(turn.agent.command), "text": text}
        result = turn.step("terminal", request, lambda: self._exchange(turn, text))
        turn.facts["injected"] = result["injected"]
        return str(result["text"])

    def _exchange(self, turn: Turn, text: str) -> dict[str, Any]:
        dispatch_id = turn.claim.dispatch_id
        try:
            life = self._life_for(turn)
            if life.answered[0] == dispatch_id:
                return life.answered[1]
            request = {"terminal": life.terminal.life, "text": text}
            how = turn.forward_step("inject", request, lambda: self._inject(turn, life, text))
            turn.facts["injected"] = how["verification"]
            answer = self._answer(turn, life)
        except (Deadline, Cancelled) as error:
            said = self._last_words()
            how_it_ended = self._stop(turn)
            if isinstance(error, Cancelled):
                raise
            reason = f"the turn passed its time limit: {how_it_ended}"
            raise _failed(reason, retryable=True, said=said, is_late=True) from None
        except InputRejected as error:
            self.throttle = self.throttle.after("failed")
            self._tried_at = time.monotonic()
            said = self._last_words()
            self._end(turn, str(error))
            reason = f"the program did not take the event: {error}"
            raise _failed(reason, retryable=True, said=said) from None
        except AnswerFailed as error:
            said = self._last_words()
            self._end(turn, str(error))
            again = not isinstance(error, OutputTooLarge)
            raise _failed(f"the program failed: {error}", retryable=again, said=said) from None
        result = {"text": answer, "injected": how["verification"]}
        life.busy_with, life.answered = "", (dispatch_id, result)
        return result

    def _last_words(self) -> str:
        said = self._life.terminal.last_words if self._life is not None else ""
        return last_bytes(said, MESSAGE_BYTES_MAX)

    def _life_for(self, turn: Turn) -> _Life:
        """The program, ready for this turn's event or busy with it."""
        life, dispatch_id = self._life, turn.claim.dispatch_id
        if life is not None:
            if life.has(dispatch_id):
                return life
            if (ending := life.terminal.program.ending) is not None:
                self._end(turn, ending)
            elif life.busy_with:
                self._end(turn, "an earlier turn was left in the middle")
            elif dispatch_id in life.typed:
                self._end(turn, "it was given this event before, and no event is typed twice")
        with noted_limit() as passed:
            check = _check(turn, passed)
            self._await_throttle(check)
            if self._life is None:
                self._life = _Life(_start(turn))
                program = self._life.terminal.program
                logger.info("started the program of %s: %d", turn.claim.agent, program.pid)
            self._life.terminal.await_input(check)
        return self._life

    def _await_throttle(self, check: Callable[[], None]) -> None:
        """Wait for the throttle's delay, which grows with each failure."""
        until = self._tried_at + self.throttle.delay_ms / 1000
        while time.monotonic() < until:
            check()
            time.sleep(min(0.05, max(0.0, until - time.monotonic())))

    def _inject(self, turn: Turn, life: _Life, text: str) -> Mapping[str, str]:
        if life.busy_with != turn.claim.dispatch_id or life.handed is None:
            life.busy_with, life.handed = turn.claim.dispatch_id, None
            life.typed.append(turn.claim.dispatch_id)
            try:
                with noted_limit() as passed:
                    life.handed = life.terminal.submit(text, _check(turn, passed))
            except Untypeable as error:
                life.busy_with = ""
                raise _failed(str(error), retryable=False) from None
            echoed = life.handed.echoed
            self.throttle = self.throttle.after("ack" if echoed else "unverified")
            self._tried_at = time.monotonic()
        return _verification(life.handed, turn)

    def _answer(self, turn: Turn, life: _Life) -> str:
        assert life.handed is not None  # noqa: S101 - it has just been typed
        growing = _GrowingAnswer(turn) if turn.agent.stream else None
        say = growing.say if growing else None
        with noted_limit() as passed:
            answer = life.terminal.await_answer(life.handed, _check(turn, passed), say)
        if growing:
            growing.end(answer)
        return answer

    def _stop(self, turn: Turn) -> str:
        """Stop the turn; the program's reaction, as the end of a sentence."""
        life = self._life
        if life is None:
            return "its program was not running yet"
        with noted_limit():
            if life.busy_with and life.terminal.interrupt():
                life.busy_with = ""
                return "the program was interrupted (Ctrl-C) and is ready again"
        fault = "did not become ready again after Ctrl-C" if life.busy_with else "was not ready"
        self._end(turn, fault)
        return f"the program {fault} and was killed"

    def _end(self, turn: Turn, why: str) -> None:
        if self._life is not None:
            logger.warning("the program of %s is ended: %s", turn.claim.agent, why)
            with noted_limit():
                self._life.terminal.program.stop()
                self._life = None

    def _shutdown(self, **_: Any) -> None:
        """End the program before the process that runs turns ends."""
        if self._life is not None:
            self._life.terminal.program.stop()
            self._life = None


class _GrowingAnswer:
    """Publishes an answer while it grows; voids the text when the program draws another."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._published = ""

    def say(self, text: str) -> None:
        if len(text) > len(self._published) and text.startswith(self._published):
            self._turn.say(text[len(self._published) :])
            self._published = text

    def end(self, text: str) -> None:
        if not text.startswith(self._published):
            self._turn.say_again()
            self._published = ""
        self._turn.say(text[len(self._published) :])


def _start(turn: Turn) -> Terminal:
    agent = turn.agent
    # Not the worker's own TERM, which names another terminal.
    environment = {**agent_environment(turn), "TERM": agent.env.get("TERM", TERM)}
    try:
        program = TerminalProgram(agent.command, cwd=agent.cwd, environment=environment)
    except OSError as error:
        what = agent.cwd if agent.cwd and not Path(agent.cwd).is_dir() else agent.command[0]
        why = os.strerror(error.errno) if error.errno else str(error)
        passing = error.errno in PASSING
        raise _failed(f"{what} cannot be used: {why}", retryable=passing) from error
    return Terminal(program, agent.terminal or Terms(), agent.max_output_bytes)


def _check(turn: Turn, passed: Callable[[], bool]) -> Callable[[], None]:
    def check() -> None:
        if passed() or time.monotonic() >= turn.deadline:
            raise Deadline

    return check


def _verification(handed: TypedEvent, turn: Turn) -> Mapping[str, str]:
    if handed.echoed:
        return {"verification": "echo", "reason": "the terminal shows what was typed"}
    echo_s = (turn.agent.terminal or Terms()).echo_s
    reason = f"the terminal did not show within {echo_s:g} s what was typed"
    return {"verification": "timeout_fallback", "reason": reason}


def _failed(reason: str, *, retryable: bool, said: str = "", is_late: bool = False) -> TurnFailed:
    return TurnFailed(
        Failure(
            stage=FailureStage.TIMEOUT if is_late else FailureStage.TOOL,
            reason=reason,
            retryable=retryable,
            kind="Deadline" if is_late else "TerminalFailed",
            message=said,
        )
    )
