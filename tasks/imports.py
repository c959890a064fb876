"""Importing `package.module:name` of a configuration, from the folder that the fleet runs in."""

import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from fleet.ledger import Failure, FailureStage
from fleet.turn.turn import TurnFailed


@cache
def imported(path: str) -> Any:
    """The object. Raises TurnFailed, not retryable, when it cannot be imported."""
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
        failure = Failure(
            stage=FailureStage.TOOL, reason=reason, retryable=False, kind="ImportError"
        )
        raise TurnFailed(failure) from error
    return target
