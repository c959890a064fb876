"""Runner `python`: any importable callable is an agent.

def answer(turn):            # agents.NAME.python = "my_agents:answer"
    return "you said " + turn.text

It may be async, or a generator. A generator's strings are published as they come, and joined they
are the answer.
"""

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any

from pydantic_core import from_json, to_json

from fleet.ledger import Failure, FailureStage
from fleet.turn.turn import Turn, TurnFailed
from tasks.agent_callable import ANSWERS, fault_of
from tasks.execution.event_loop import TurnLoop
from tasks.imports import imported


class PythonRunner:
    """Calls the configured callable with the turn; its value, or its strings, are the answer."""

    def __init__(self) -> None:
        #: From the first async turn of this process until its end.
        self._loop: TurnLoop | None = None

    def run(self, turn: Turn) -> str:
        """The callable's answer: text as it is, None as an empty one, anything else as JSON.

        Raises TurnFailed when the callable cannot be imported, or called with a turn, or when its
        value is not an answer. An exception of the callable passes.
        """
        value = _agent(turn)(turn)
        if inspect.isawaitable(value) or isinstance(value, AsyncIterable):
            self._loop = self._loop or TurnLoop()
            value = self._loop.run(_awaited(turn, value))
        return _answer(turn, value)


def _agent(turn: Turn) -> Callable[[Turn], Any]:
    target: Callable[[Turn], Any] = imported(str(turn.agent.python))
    if fault := fault_of(target):
        raise _refused(turn, fault)
    return target


async def _awaited(turn: Turn, value: Any) -> Any:
    while inspect.isawaitable(value):
        value = await value
    if not isinstance(value, AsyncIterable):
        return value
    closing: AbstractAsyncContextManager[Any] = (
        aclosing(value) if isinstance(value, AsyncGenerator) else nullcontext()
    )
    async with closing:
        return "".join([_published(turn, piece) async for piece in value])


def _answer(turn: Turn, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, Iterator):
        return "".join(_published(turn, piece) for piece in value)
    try:
        if isinstance(value, bytes):
            return value.decode()
        text = to_json(value)
        from_json(text, allow_inf_nan=False)  # NaN and infinities have no JSON form
        return text.decode()
    except ValueError as error:
        raise _refused(turn, f"returned {type(value).__name__}: {ANSWERS}") from error


def _published(turn: Turn, piece: Any) -> str:
    if not isinstance(piece, str):
        raise _refused(turn, f"yielded {type(piece).__name__}: a generator yields text")
    turn.say(piece)
    return piece


def _refused(turn: Turn, fault: str) -> TurnFailed:
    reason = f"agents.{turn.claim.agent}.python: {turn.agent.python} {fault}"
    return TurnFailed(
        Failure(stage=FailureStage.TOOL, reason=reason, retryable=False, kind="NoAnswer")
    )
