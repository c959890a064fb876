"""Turns that die at a named moment: `<steps> <seconds> [<moment> <who>]`, in their first attempt.

The moments lie where only the process itself can hit them: a test from outside would need luck.
`who` is the child that runs the turn, its worker, or both.
"""

import os
import signal
from typing import Any

from fleet import runtime
from fleet.bench import _chaos_turns
from fleet.ledger import Claim, Ending, State
from fleet.turn.turn import Turn
from tests.fixtures.agents import wait_for_gate

MOMENTS = ("claimed", "answered", "kept", "before_commit", "committed")
WHO = ("child", "worker", "both")


def calls(turn: Turn) -> str:
    """As `fleet.bench._chaos_turns.calls`, up to the moment."""
    words = turn.text.split(" ")
    if len(words) < 4 or turn.claim.attempt > 1:
        return _chaos_turns.calls(turn)
    moment, who = words[2:]
    if moment == "claimed":
        _die(who)
    if moment in ("answered", "kept"):
        die_around_step(turn, moment, who, "2")
    if moment in ("before_commit", "committed"):
        _around_commit(moment, who)
    return _chaos_turns.calls(turn)


def gate(turn: Turn) -> str:
    """Write a diary until the test makes a file of the name that the event's text is."""
    with _chaos_turns.diary(turn):
        wait_for_gate(turn.text)
    return turn.text


def die_around_step(turn: Turn, moment: str, who: str, step: str) -> None:
    """Let the turn die when a step is `answered`, but not kept, or `kept`, and nothing else begun.

    The journal of a turn is the ledger it was given.
    """
    ledger = turn.ledger

    class Dying:
        """The same ledger, for a turn that dies."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger, name)

        def step(self, claim: Claim, key: str, entry: str, *more: Any) -> str:
            if moment == "answered" and key == step:
                _die(who)
            cancel = ledger.step(claim, key, entry, *more)
            if moment == "kept" and key == step:
                _die(who)
            return cancel

    turn.ledger = Dying()


class DyingLlm:
    """Runner `dying`: as `llm`, up to the `<moment> <who> <step>` that is the event's subject."""

    def run(self, turn: Turn) -> str:
        from tasks.runners.llm import LlmRunner  # the other turns here need no model

        if turn.claim.attempt == 1:
            moment, who, step = str(turn.event.subject).split()
            die_around_step(turn, moment, who, step)
        return LlmRunner().run(turn)


def _around_commit(moment: str, who: str) -> None:
    """The outcome is written by the task, with this process's own ledger."""
    ledger = runtime.ledger()
    commit = ledger.commit

    def dying(claim: Claim, ending: Ending) -> State:
        if moment == "before_commit":
            _die(who)
        state = commit(claim, ending)
        _die(who)
        return state

    ledger.commit = dying  # type: ignore[method-assign]


def _die(who: str) -> None:
    if who in ("worker", "both"):
        os.kill(os.getppid(), signal.SIGKILL)
    if who in ("child", "both"):
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # the worker's death reaches its child at once
