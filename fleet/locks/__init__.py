"""Locks on the store, usable on their own: they need a `Store` and nothing else of the fleet.

An agent's lease is not one of them: it is in `fleet.worker.lease`.
"""

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
