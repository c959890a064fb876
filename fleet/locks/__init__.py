"""Locks on the store, usable on their own: they need a `Store` and nothing else of the fleet."""

from fleet.locks.classify import OperationClassifier
from fleet.locks.errors import Busy, GivenUp, LockLost, StoreDown
from fleet.locks.guard import ConcurrencyGuard
from fleet.locks.hold import Hold
from fleet.locks.session import SessionLock
from fleet.locks.turn import TurnRWLock

__all__ = [
    "Busy",
    "ConcurrencyGuard",
    "GivenUp",
    "Hold",
    "LockLost",
    "OperationClassifier",
    "SessionLock",
    "StoreDown",
    "TurnRWLock",
]
