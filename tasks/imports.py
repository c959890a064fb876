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
    # The user's own modules lie there. Last, because they must not hide what the fleet imports.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
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
