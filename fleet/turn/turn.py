"""A turn: an agent's work in one attempt, each step journalled.

    answer = turn.step("ask", {"model": ..., "messages": ...}, lambda: call_the_model())

A step that finished in an earlier attempt is not run again: its result is read from the journal.
So a killed turn resumes at its first unfinished step, and a finished model call is paid for once.
A step is known by its name, its request and its occurrence, so steps may run side by side: see
`fleet.turn.journal`.
"""

import asyncio
import inspect
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet import tracing
from fleet.config.agents import AgentConfig
from fleet.ledger import NOTHING, ChainPosition, Claim, Cost, Earlier, Failure, Runs, SessionMessage
from fleet.store.connection import retry_while_away
from fleet.turn.journal import Journal, Step, json_text, readable
from fleet.turn.live_text import LiveText
from routing import Event

#: A finished step is worth waiting for the broker; a dead broker must not hold the turn for ever.
JOURNAL_TIMEOUT_S = 60.0

_STAGE = (
    "This is stage {stage} of {stages} ({name}) of the chain {chain!r}. You may end your answer "
    "with one line that decides how it goes on: APPROVE, REJECT: why (the chain stops), or "
    "REVISE: what to change (an earlier stage does its work again)."
)


class TurnStopped(BaseException):
    """Stops a turn from outside. Not an Exception, so that no library retries or swallows it."""

    #: Content: the last words of the program that was stopped.
    said = ""


class Deadline(TurnStopped):
    """The soft time limit has passed."""


class Cancelled(TurnStopped):
    """A caller asked to cancel the dispatch."""


class TurnFailed(Exception):
    """A runner's own account of a failure: stage, reason, and whether to try again.

    Any other exception of an agent's code is tried again, except for PROGRAMMING_ERRORS.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Usage:
    """Cost of a turn's steps so far, replayed ones included."""

    def __init__(self) -> None:
        #: Appended to by several threads at once, where steps run side by side.
        self._costs: list[Cost] = []

    @property
    def tokens_in(self) -> int:
        """Tokens that models read."""
        return sum(cost.tokens_in for cost in self._costs)

    @property
    def tokens_out(self) -> int:
        """Tokens that models wrote."""
        return sum(cost.tokens_out for cost in self._costs)

    @property
    def usd(self) -> float:
        """Dollars."""
        return sum(cost.usd for cost in self._costs)

    def add(self, result: Any) -> Cost:
        """Count a step's result, when it is an object with `tokens_in`, `tokens_out` or `usd`."""
        cost = Cost.of(result)
        self._costs.append(cost)
        return cost


#: Defects of an agent's code, which no further attempt mends.
PROGRAMMING_ERRORS = (
    AssertionError,
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
)


@dataclass(slots=True)
class Turn:
    """The value that a runner works on: the event, the agent, and the journal of its steps."""

    claim: Claim
    agent: AgentConfig
    deadline: float  #: in time.monotonic() seconds
    ledger: Runs
    live_text: LiveText | None = None  #: set where the agent streams
    usage: Usage = field(default_factory=Usage)
    #: Of the dispatch's record: `model`, `tier`, `injected` and `cut`; others fail the turn.
    facts: dict[str, str | int | float] = field(default_factory=dict)
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(
            self.claim.attempt, lambda: self.ledger.steps(self.claim.dispatch_id)
        )

    @property
    def steps(self) -> int:
        """The number of steps begun so far."""
        return self.journal.steps

    @property
    def text(self) -> str:
        """The text for the agent."""
        return self.claim.text

    @property
    def history(self) -> tuple[SessionMessage, ...]:
        """Earlier messages of this session, oldest first; the same in every attempt."""
        return self.claim.history

    @property
    def event(self) -> Event:
        """The whole event."""
        return self.claim.event

    @property
    def chain_position(self) -> ChainPosition | None:
        """The chain and the stage of this turn; None outside a chain."""
        return self.claim.chain_position

    @property
    def earlier(self) -> tuple[Earlier, ...]:
        """Endings of the chain's earlier stages; the same in every attempt."""
        return self.claim.chain_position.earlier if self.claim.chain_position else ()

    @property
    def prompt(self) -> str:
        """The text; in a chain also the earlier stages' answers and the ways to decide."""
        position = self.claim.chain_position
        if position is None:
            return self.text
        stage = _STAGE.format(
            stage=position.stage,
            stages=position.stages,
            name=position.stage_name,
            chain=position.chain,
        )
        return "\n\n".join([self.text, *map(_earlier, position.earlier), stage])

    @property
    def fence(self) -> int:
        """A number that grows with every attempt in the fleet, to guard what lies outside of it.

        It is greater than that of every earlier holder of the agent, and of the session. So a
        database or a file that keeps the greatest number it has seen can refuse a late writer.
        """
        return self.claim.turn_fence

    @property
    def remaining_s(self) -> float:
        """Seconds until the soft limit."""
        return self.deadline - time.monotonic()

    def say(self, text: str) -> None:
        """Publish a piece of the answer to live listeners; nothing where the agent does not stream.

        Never waits and never raises. The runner's return value remains the answer.
        """
        if self.live_text is not None:
            self.live_text.publish(self.steps, text)

    def say_again(self) -> None:
        """Void the text published in this step, which begins anew."""
        if self.live_text is not None:
            self.live_text.reset(self.steps)

    def step(self, name: str, request: Any, call: Callable[[], Any]) -> Any:
        """The result of `call`, run at most once over all attempts; results are JSON values.

        Where `call` returns an awaitable, this method returns one too: `await turn.step(...)`.

        Steps may run side by side, in threads and tasks. Those of one name and request take what
        the journal has of it in the order in which they begin.

        The result is the same in every attempt: what its JSON form reads as, so a tuple is a list.

        Raises what `call` raises; the step is not journalled then. Raises TypeError for a request
        without a JSON form, before the call, and for an awaitable where no event loop runs. For a
        result without a JSON form, NaN among it, TypeError is raised in every attempt: the call was
        made, so the journal keeps a readable form of the result. Raises Cancelled between steps,
        and Fenced when this attempt is not the current one.
        """
        return self._run_step(name, request, call)

    def forward_step(
        self, name: str, request: Any, call: Callable[[], Mapping[str, str]]
    ) -> Mapping[str, str]:
        """Run `step` for a `call` that gives the event to a program that may not confirm it.

        The result's `verification` (`echo` or `timeout_fallback`) and `reason` say how far the
        program confirmed it. The journal's entry puts both on the bus and counts them, atomically.
        """
        result: Mapping[str, str] = self._run_step(name, request, call, forwards=True)
        return result

    def step_many(
        self,
        wanted: Sequence[tuple[str, Any]],
        run: Callable[[Sequence[int]], Iterable[tuple[int, Any]]],
    ) -> list[Any]:
        """The results of several steps, each a name and a request, that may run side by side.

        Steps begin in the order of `wanted`. `run` gets the indexes in `wanted` of the steps
        without a result. It yields each index with its result as the step ends; that result is
        journalled at once. Raises as `step`.
        """
        steps = [self.journal.begin(name, request) for name, request in wanted]
        results = {
            index: self._replay(step.finished)
            for index, step in enumerate(steps)
            if step.finished is not None
        }
        missing = [index for index in range(len(steps)) if index not in results]
        if missing:
            with tracing.span("fleet.steps", step=steps[0].number, count=len(missing)):
                for index, result in run(missing):
                    results[index] = self._finish(steps[index], result)
        return [results[index] for index in range(len(steps))]

    def _run_step(
        self, name: str, request: Any, call: Callable[[], Any], *, forwards: bool = False
    ) -> Any:
        step = self.journal.begin(name, request)
        if step.finished is not None:
            if step.finished.get("awaited"):
                return self._replay_awaited(step.finished)
            return self._replay(step.finished)
        with tracing.span(f"fleet.step {name}", step=step.number) as span:
            with self.journal.within(step):
                result = call()
            if inspect.isawaitable(result):
                _refuse_without_loop(name, result)
                return self._finish_awaited(step, result)
            span.set(**_figures(result))
        if forwards:
            confirmed = (result["verification"], result["reason"])
            return self._finish(step, result, *confirmed, handed_over=True)
        return self._finish(step, result)

    async def _finish_awaited(self, step: Step, call: Awaitable[Any]) -> Any:
        with tracing.span(f"fleet.step {step.name} awaited", step=step.number) as span:
            with self.journal.within(step):
                result = await call
            span.set(**_figures(result))
        return self._finish(step, result, awaited=True)

    async def _replay_awaited(self, entry: Mapping[str, Any]) -> Any:
        return self._replay(entry)

    def _replay(self, entry: Mapping[str, Any]) -> Any:
        self.usage.add(entry["result"])
        if fault := entry.get("fault"):
            raise TypeError(fault)
        return entry["result"]

    def _finish(self, step: Step, result: Any, *confirmed: str, **flags: Any) -> Any:
        """Journal a finished step; its result, as later attempts read it."""
        fault = f"the result of step {step.name!r}, which is kept, is not a JSON value"
        try:
            value = json.loads(json_text(result, fault))
        except TypeError as error:
            value, flags["fault"] = readable(result), str(error)
        entry = step.entry(self.claim.attempt, value, flags)
        self._write(step.key, entry, self.usage.add(value), *confirmed)
        if "fault" in flags:
            raise TypeError(flags["fault"])
        return value

    def _write(self, key: str, entry: str, cost: Cost = NOTHING, *confirmed: str) -> None:
        if cancel := retry_while_away(
            lambda: self.ledger.step(self.claim, key, entry, cost, *confirmed), JOURNAL_TIMEOUT_S
        ):
            raise Cancelled(cancel)


class Runner(Protocol):
    """The part of an agent that turns an event into an answer.

    Built-in runners are in `tasks.runners`; others are found by entry point, group `fleet.runners`.
    """

    def run(self, turn: Turn) -> str:
        """The agent's answer. Raises TurnFailed; any other exception fails the turn as it is."""
        ...


def _earlier(end: Earlier) -> str:
    verdict = f", {end.verdict}" if end.verdict else ""
    again = f", round {end.round}" if end.round > 1 else ""
    heading = f"[stage {end.stage}, {end.agent}{again}: {end.state}{verdict}]"
    return f"{heading}\n{end.answer}".rstrip()


def _refuse_without_loop(name: str, result: Any) -> None:
    """Raises TypeError where no event loop could await `result`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            f"step {name!r}: its call is async, so `await` the step, in an `async def` agent"
        ) from None


def _figures(result: Any) -> dict[str, str | int | float]:
    """The parts of a step's result that a trace may show."""
    known = ("model", "tier", "tokens_in", "tokens_out", "usd", "finish_reason")
    if not isinstance(result, Mapping):
        return {}
    return {name: result[name] for name in known if isinstance(result.get(name), str | int | float)}
