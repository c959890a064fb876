"""A turn: an agent's work in one attempt, each step journalled.

    answer = turn.step("ask", {"model": ..., "messages": ...}, lambda: call_the_model())

A step that finished in an earlier attempt is not run again: its result is read from the journal.
So a killed turn resumes at its first unfinished step, and a finished model call is paid for once.
A step is known by its number in the turn and by a hash of its request. When the request has changed
since, the old entry is set aside and the step runs anew.
"""

import asyncio
import hashlib
import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet import tracing
from fleet.config.agents import AgentConfig
from fleet.ledger import NOTHING, ChainPosition, Claim, Cost, Earlier, Failure, Runs, SessionMessage
from fleet.store.retry import retry_while_away
from fleet.turn.live_text import LiveText
from routing import Event

logger = logging.getLogger(__name__)

#: A finished step is worth waiting for the broker; a dead broker must not hold the turn for ever.
JOURNAL_TIMEOUT_S = 60.0


class TurnStopped(BaseException):
    """Stops a turn from outside. Not an Exception, so that no library retries or swallows it."""


class Deadline(TurnStopped):
    """The soft time limit has passed."""


class Cancelled(TurnStopped):
    """A caller asked to cancel the dispatch."""


class TurnFailed(Exception):
    """A runner's own account of a failure: stage, reason, and whether to try again."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass(slots=True)
class Usage:
    """Cost of a turn's steps so far, replayed ones included."""

    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0

    def add(self, result: Any) -> Cost:
        """Count a step's result, when it is an object with `tokens_in`, `tokens_out` or `usd`."""
        cost = Cost.of(result)
        self.tokens_in += cost.tokens_in
        self.tokens_out += cost.tokens_out
        self.usd += cost.usd
        return cost


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of a turn: its number, and the request by which a later attempt knows it."""

    number: int
    name: str
    digest: str
    started: float

    @classmethod
    def begin(cls, number: int, name: str, request: Any) -> "_Step":
        text = json.dumps([name, request], ensure_ascii=False, sort_keys=True)
        digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]
        return cls(number, name, digest, time.monotonic())

    def entry(self, attempt: int, result: Any, flags: dict[str, bool]) -> str:
        """The journal's entry of a finished step."""
        entry = {
            "name": self.name,
            "hash": self.digest,
            "attempt": attempt,
            "elapsed_s": round(time.monotonic() - self.started, 3),
            "result": result,
        }
        return json.dumps(entry | flags, ensure_ascii=False)


@dataclass(slots=True)
class Turn:
    """The value that a runner works on: the event, the agent, and the journal of its steps."""

    claim: Claim
    agent: AgentConfig
    deadline: float  #: in time.monotonic() seconds
    ledger: Runs
    live_text: LiveText | None = None  #: set where the agent streams
    usage: Usage = field(default_factory=Usage)
    facts: dict[str, str | int | float] = field(default_factory=dict)
    _journal: dict[str, str] | None = None
    steps: int = 0  #: started so far

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
        Steps are numbered in the order of these calls. That order must be the same in every
        attempt.

        Raises what `call` raises; the step is not journalled then. Raises TypeError for a result or
        a request without a JSON form, and for an awaitable where no event loop runs. Raises
        Cancelled between steps, and Fenced when this attempt is not the current one.
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

        Steps are numbered in the order of `wanted`, so a later attempt finds each, whichever ended
        first. `run` gets the indexes in `wanted` of the steps without a result. It yields each
        index with its result as the step ends; that result is journalled at once. Raises as `step`.
        """
        steps = [self._begin(name, request) for name, request in wanted]
        results: dict[int, Any] = {}
        for index, step in enumerate(steps):
            if (entry := self._finished(step)) is not None:
                results[index] = self._replay(entry)
        missing = [index for index in range(len(steps)) if index not in results]
        if missing:
            with tracing.span("fleet.steps", step=steps[0].number, count=len(missing)):
                for index, result in run(missing):
                    results[index] = self._finish(steps[index], result)
        return [results[index] for index in range(len(steps))]

    def _run_step(
        self, name: str, request: Any, call: Callable[[], Any], *, forwards: bool = False
    ) -> Any:
        step = self._begin(name, request)
        if (entry := self._finished(step)) is not None:
            result = self._replay(entry)
            return _awaitable(result) if entry.get("awaited") else result
        with tracing.span(f"fleet.step {name}", step=step.number) as span:
            result = call()
            if inspect.isawaitable(result):
                _refuse_without_loop(name, result)
                return self._finish_awaited(step, result)
            span.set(**_figures(result))
        if forwards:
            confirmed = (result["verification"], result["reason"])
            return self._finish(step, result, *confirmed, handed_over=True)
        return self._finish(step, result)

    async def _finish_awaited(self, step: _Step, call: Awaitable[Any]) -> Any:
        with tracing.span(f"fleet.step {step.name} awaited", step=step.number) as span:
            result = await call
            span.set(**_figures(result))
        return self._finish(step, result, awaited=True)

    def _begin(self, name: str, request: Any) -> _Step:
        self.steps += 1
        return _Step.begin(self.steps, name, request)

    def _finished(self, step: _Step) -> dict[str, Any] | None:
        """The step's entry from an earlier attempt, unless its request has changed since."""
        if self._journal is None:
            first = self.claim.attempt == 1
            self._journal = {} if first else self.ledger.steps(self.claim.dispatch_id)
        number = str(step.number)
        text = self._journal.get(number)
        if text is None:
            return None
        entry: dict[str, Any] = json.loads(text)
        if entry["hash"] == step.digest:
            return entry
        logger.warning(
            "step %s of %s has changed since attempt %s: its journalled result is set aside",
            number,
            self.claim.dispatch_id,
            entry["attempt"],
        )
        self._write(f"{number}.aside.{entry['attempt']}", text)
        return None

    def _replay(self, entry: Mapping[str, Any]) -> Any:
        self.usage.add(entry["result"])
        return entry["result"]

    def _finish(self, step: _Step, result: Any, *confirmed: str, **flags: bool) -> Any:
        """Journal a finished step; the result."""
        entry = step.entry(self.claim.attempt, result, flags)
        self._write(str(step.number), entry, self.usage.add(result), *confirmed)
        return result

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


async def _awaitable(result: Any) -> Any:
    return result


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
