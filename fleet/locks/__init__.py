"""Locks on the store, usable on their own: they need a `Store` and nothing else of the fleet."""

from fleet.locks.classify import OperationClassifier
from fleet.locks.errors import LockBusy, LockLost, StoreUnavailable, WaitCancelled
from fleet.locks.guard import ConcurrencyGuard
from fleet.locks.handle import LockHandle
from fleet.locks.session import SessionLock
from fleet.locks.turn import TurnRWLock

__all__ = [
    "ConcurrencyGuard",
    "LockBusy",
    "LockHandle",
    "LockLost",
    "OperationClassifier",
    "SessionLock",
    "StoreUnavailable",
    "TurnRWLock",
    "WaitCancelled",
]
