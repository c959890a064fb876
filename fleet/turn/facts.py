"""Facts of a turn in its dispatch's record: which there are, and which values each may have."""

from collections.abc import Callable, Mapping
from typing import Any

from fleet.ledger import Failure, FailureStage
from fleet.turn.turn import TurnFailed

MODEL_CHARS_MAX = 256
#: No agent has as many fallbacks.
TIER_MAX = 1000

_VALUES: Mapping[str, Callable[[Any], bool]] = {
    "model": lambda value: (
        isinstance(value, str) and value.isprintable() and len(value) <= MODEL_CHARS_MAX
    ),
    "tier": lambda value: type(value) is int and 0 <= value <= TIER_MAX,
    "injected": lambda value: value in ("echo", "timeout_fallback"),
    "cut": lambda value: value in ("length", "unknown"),
}


def known(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Those facts that a record may have."""
    return {
        name: facts[name] for name, fits in _VALUES.items() if name in facts and fits(facts[name])
    }


def check(facts: Mapping[str, Any]) -> None:
    """Raises TurnFailed for a fact that would overwrite or break the record."""
    wrong = [str(name) for name in facts if name not in known(facts)]
    if wrong:
        reason = (
            f"turn.facts: {wrong[0][:60]!a} is not a fact of a record, or has a wrong value; "
            f"there are {', '.join(_VALUES)}"
        )
        raise TurnFailed(
            Failure(stage=FailureStage.TOOL, reason=reason, retryable=False, kind="WrongFact")
        )
