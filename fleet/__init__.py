"""A durable Celery worker fleet for language-model agents.

The names in `__all__` are the public interface; everything else is internal and may change. Each
is loaded when it is first used, so `import fleet` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleet.client.fleet import Fleet, SentEvent
    from fleet.config.settings import Settings
    from fleet.config.settings import load as load_settings
    from fleet.errors import (
        ApiUnreachable,
        BrokerRefusal,
        BrokerUnavailable,
        ConfigError,
        Fenced,
        FleetError,
        Forbidden,
        IdempotencyConflict,
        NotAFleet,
        NotPossible,
        Refused,
        SessionBusy,
        StoreLost,
        TokenRefused,
        Unknown,
    )
    from fleet.ledger import Failure, FailureStage
    from fleet.turn.turn import Cancelled, Deadline, Runner, Turn, TurnFailed, TurnStopped

__all__ = [
    "ApiUnreachable",
    "BrokerRefusal",
    "BrokerUnavailable",
    "Cancelled",
    "ConfigError",
    "Deadline",
    "Failure",
    "FailureStage",
    "Fenced",
    "Fleet",
    "FleetError",
    "Forbidden",
    "IdempotencyConflict",
    "NotAFleet",
    "NotPossible",
    "Refused",
    "Runner",
    "SentEvent",
    "SessionBusy",
    "Settings",
    "StoreLost",
    "TokenRefused",
    "Turn",
    "TurnFailed",
    "TurnStopped",
    "Unknown",
    "load_settings",
]

#: Public name -> where it is defined.
_HOMES = {
    "ApiUnreachable": "fleet.errors.ApiUnreachable",
    "BrokerRefusal": "fleet.errors.BrokerRefusal",
    "BrokerUnavailable": "fleet.errors.BrokerUnavailable",
    "Cancelled": "fleet.turn.turn.Cancelled",
    "ConfigError": "fleet.errors.ConfigError",
    "Deadline": "fleet.turn.turn.Deadline",
    "Failure": "fleet.ledger.Failure",
    "FailureStage": "fleet.ledger.FailureStage",
    "Fenced": "fleet.errors.Fenced",
    "Fleet": "fleet.client.fleet.Fleet",
    "FleetError": "fleet.errors.FleetError",
    "Forbidden": "fleet.errors.Forbidden",
    "IdempotencyConflict": "fleet.errors.IdempotencyConflict",
    "NotAFleet": "fleet.errors.NotAFleet",
    "NotPossible": "fleet.errors.NotPossible",
    "Refused": "fleet.errors.Refused",
    "Runner": "fleet.turn.turn.Runner",
    "SentEvent": "fleet.client.fleet.SentEvent",
    "SessionBusy": "fleet.errors.SessionBusy",
    "Settings": "fleet.config.settings.Settings",
    "StoreLost": "fleet.errors.StoreLost",
    "TokenRefused": "fleet.errors.TokenRefused",
    "Turn": "fleet.turn.turn.Turn",
    "TurnFailed": "fleet.turn.turn.TurnFailed",
    "TurnStopped": "fleet.turn.turn.TurnStopped",
    "Unknown": "fleet.errors.Unknown",
    "load_settings": "fleet.config.settings.load",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fleet' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].rpartition(".")
    value: object = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
