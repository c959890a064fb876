"""Runner `python`: any importable callable is an agent.

def answer(turn):            # agents.NAME.python = "my_agents:answer"
    return "you said " + turn.text
"""

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from fleet.ledger import Failure, Stage
from fleet.runner import TurnFailed
from fleet.turn import Turn


class PythonRunner:
    """Calls the configured callable with the turn; what it returns is the answer."""

    def run(self, turn: Turn) -> str:
        """The callable's answer; None is an empty one, and what is no string becomes one.

        Raises TurnFailed when the callable cannot be imported; what it raises itself passes.
        """
        answer = _callable(str(turn.agent.python))(turn)
        return "" if answer is None else str(answer)


@cache
def _callable(path: str) -> Callable[[Turn], Any]:
    module, _, name = path.partition(":")
    # As `celery` and `python -m` do: the user's own module lies in the directory the fleet runs in.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        target: Any = import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        reason = f"{path} cannot be imported: {error}"
        failure = Failure(stage=Stage.TOOL, reason=reason, retryable=False, kind="ImportError")
        raise TurnFailed(failure) from error
    found: Callable[[Turn], Any] = target
    return found
