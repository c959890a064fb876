"""A turn: what an agent does in one attempt, each step journalled.

    answer = turn.step("ask", {"model": ..., "messages": ...}, lambda: call_the_model())

A step that finished in an earlier attempt is not run again: its result is read from the journal.
So a killed turn resumes at its first unfinished step, and a finished model call is paid for once.
Steps are known by their number in the turn and by a hash of their request; when the request has
changed since, the old entry is set aside and the step runs anew.
"""

import asyncio
import hashlib
import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet import tracing
from fleet.config.agents import AgentConfig
from fleet.ledger import NOTHING, ChainPosition, Claim, Cost, Earlier, Runs, Said
from fleet.store.retry import retry_while_away
from fleet.turn.live_text import LiveText
from routing import Event

logger = logging.getLogger(__name__)

#: A finished step is worth waiting for the broker; a dead broker must not hold the turn for ever.
JOURNAL_TIMEOUT_S = 60.0


class TurnStopped(BaseException):
    """Ends a turn from outside. No Exception, so that no library retries or swallows it."""


class Deadline(TurnStopped):
    """The soft time limit has passed."""


class Cancelled(TurnStopped):
    """Somebody asked to cancel the dispatch."""


@dataclass(slots=True)
class Usage:
    """What the steps of a turn have cost so far, replayed ones included."""

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


@dataclass(slots=True)
class Turn:
    """What a runner is given. `text` is what the agent is told; `event` is all of it."""

    claim: Claim
    agent: AgentConfig
    deadline: float  #: in time.monotonic() seconds
    ledger: Runs
    live_text: LiveText | None = None  #: where the agent streams
    usage: Usage = field(default_factory=Usage)
    facts: dict[str, str | int | float] = field(default_factory=dict)
    _journal: dict[str, str] | None = None
    steps: int = 0  #: started so far

    @property
    def text(self) -> str:
        """What the agent is told."""
        return self.claim.text

    @property
    def history(self) -> tuple[Said, ...]:
        """What was said in this session before, oldest first; the same in every attempt."""
        return self.claim.history

    @property
    def event(self) -> Event:
        """All that was sent."""
        return self.claim.event

    @property
    def chain_position(self) -> ChainPosition | None:
        """Where in which chain this turn is; None where it is no stage of one."""
        return self.claim.chain_position

    @property
    def earlier(self) -> tuple[Earlier, ...]:
        """What the chain's stages before this one ended with; the same in every attempt."""
        return self.claim.chain_position.earlier if self.claim.chain_position else ()

    @property
    def remaining_s(self) -> float:
        """Seconds until the soft limit."""
        return self.deadline - time.monotonic()

    def say(self, text: str) -> None:
        """Publish a piece of what is being said; nothing where the agent does not stream.

        Never waits and never raises. What is said is for who listens now: the answer is still what
        the runner returns.
        """
        if self.live_text is not None:
            self.live_text.publish(self.steps, text)

    def say_again(self) -> None:
        """What was said in this step is void: it begins anew."""
        if self.live_text is not None:
            self.live_text.reset(self.steps)

    def step(self, name: str, request: Any, call: Callable[[], Any]) -> Any:
        """The result of `call`, run at most once over all attempts; results are JSON values.

        Where `call` gives an awaitable, so does this: `await turn.step(...)` in an async agent.
        Steps are numbered in the order of these calls, which must be the same in every attempt.

        Raises what `call` raises (the step is not journalled then), TypeError for a result or
        request that is no JSON value and for an awaitable where no event loop runs, Cancelled
        between steps, Fenced when this attempt is no longer the current one.
        """
        return self._step(name, request, call)

    def forward_step(
        self, name: str, request: Any, call: Callable[[], Mapping[str, str]]
    ) -> Mapping[str, str]:
        """As `step`, for one that gives the event to somebody who may not confirm it.

        The result says by its `verification` (`echo` or `timeout_fallback`) and `reason` whether
        that one did. Both are told on the bus and counted when the step is journalled, in the same
        move.
        """
        result: Mapping[str, str] = self._step(name, request, call, tells=True)
        return result

    def _step(
        self, name: str, request: Any, call: Callable[[], Any], *, tells: bool = False
    ) -> Any:
        self.steps += 1
        number = str(self.steps)
        digest = _digest(name, request)
        found = self._finished(number, digest)
        if found is not None:
            self.usage.add(found["result"])
            return _awaitable(found["result"]) if found.get("awaited") else found["result"]
        started = time.monotonic()
        with tracing.span(f"fleet.step {name}", step=self.steps) as span:
            result = call()
            if inspect.isawaitable(result):
                _refuse_without_loop(name, result)
                return self._awaited(number, name, digest, started, result)
            span.set(**_figures(result))
        told = (result["verification"], result["reason"]) if tells else ()
        self._finish(number, name, digest, started, result, told)
        return result

    async def _awaited(
        self, number: str, name: str, digest: str, started: float, call: Awaitable[Any]
    ) -> Any:
        with tracing.span(f"fleet.step {name} awaited", step=int(number)) as span:
            result = await call
            span.set(**_figures(result))
        self._finish(number, name, digest, started, result, awaited=True)
        return result

    def step_many(
        self,
        wanted: Sequence[tuple[str, Any]],
        run: Callable[[Sequence[int]], Iterable[tuple[int, Any]]],
    ) -> list[Any]:
        """The results of several steps, each a name and a request, that may run side by side.

        They are numbered in the order of `wanted`, so a later attempt finds each again whichever
        ended first. `run` is given the places in `wanted` of those that have not finished in an
        earlier attempt, and yields each place with its result as it ends, which is journalled at
        once. Raises as `step` does.
        """
        first = self.steps + 1
        self.steps += len(wanted)
        digests = [_digest(name, request) for name, request in wanted]
        results: dict[int, Any] = {}
        for place, digest in enumerate(digests):
            if found := self._finished(str(first + place), digest):
                self.usage.add(found["result"])
                results[place] = found["result"]
        missing = [place for place in range(len(wanted)) if place not in results]
        if missing:
            started = time.monotonic()
            with tracing.span("fleet.steps", step=first, count=len(missing)):
                for place, result in run(missing):
                    name = wanted[place][0]
                    self._finish(str(first + place), name, digests[place], started, result)
                    results[place] = result
        return [results[place] for place in range(len(wanted))]

    def _finish(
        self,
        number: str,
        name: str,
        digest: str,
        started: float,
        result: Any,
        told: tuple[str, ...] = (),
        *,
        awaited: bool = False,
    ) -> None:
        entry = {
            "name": name,
            "hash": digest,
            "attempt": self.claim.attempt,
            "elapsed_s": round(time.monotonic() - started, 3),
            "result": result,
        }
        if told:
            entry["handed_over"] = True
        if awaited:
            entry["awaited"] = True
        cost = self.usage.add(result)
        self._keep(number, json.dumps(entry, ensure_ascii=False), cost, told)

    def _finished(self, number: str, digest: str) -> dict[str, Any] | None:
        if self._journal is None:
            first = self.claim.attempt == 1
            self._journal = {} if first else self.ledger.steps(self.claim.dispatch_id)
        text = self._journal.get(number)
        if text is None:
            return None
        entry: dict[str, Any] = json.loads(text)
        if entry["hash"] == digest:
            return entry
        logger.warning(
            "step %s of %s has changed since attempt %s: its journalled result is set aside",
            number,
            self.claim.dispatch_id,
            entry["attempt"],
        )
        self._keep(f"{number}.aside.{entry['attempt']}", text)
        return None

    def _keep(self, key: str, entry: str, cost: Cost = NOTHING, told: tuple[str, ...] = ()) -> None:
        if cancel := retry_while_away(
            lambda: self.ledger.step(self.claim, key, entry, cost, *told), JOURNAL_TIMEOUT_S
        ):
            raise Cancelled(cancel)


async def _awaitable(result: Any) -> Any:
    return result


def _refuse_without_loop(name: str, result: Any) -> None:
    """Raises TypeError where nobody could await `result`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            f"step {name!r}: its call is async, so `await` the step, in an `async def` agent"
        ) from None


def _figures(result: Any) -> dict[str, str | int | float]:
    """What a trace may show of a step's result."""
    known = ("model", "tier", "tokens_in", "tokens_out", "usd", "finish_reason")
    if not isinstance(result, Mapping):
        return {}
    return {name: result[name] for name in known if isinstance(result.get(name), str | int | float)}


def _digest(name: str, request: Any) -> str:
    text = json.dumps([name, request], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]
