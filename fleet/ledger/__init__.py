"""The durable record of every dispatch: the truth. A queue message is only a wake-up."""

from fleet.ledger.protocol import (
    NOTHING,
    Accepted,
    Acceptor,
    ChainPosition,
    Claim,
    Cost,
    Earlier,
    Ending,
    Failure,
    ImportedEvent,
    LeaseToken,
    Ledger,
    Report,
    Runs,
    SessionMessage,
)
from fleet.ledger.states import FailureStage, State
from fleet.ledger.valkey import ValkeyLedger

__all__ = [
    "NOTHING",
    "Accepted",
    "Acceptor",
    "ChainPosition",
    "Claim",
    "Cost",
    "Earlier",
    "Ending",
    "Failure",
    "FailureStage",
    "ImportedEvent",
    "LeaseToken",
    "Ledger",
    "Report",
    "Runs",
    "SessionMessage",
    "State",
    "ValkeyLedger",
]
