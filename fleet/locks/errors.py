"""The errors of locks.

FleetError
 |- LockBusy         others had the lock for longer than the caller would wait
 |- LockLost         the hold ended before its release: write nothing more
 |- WaitCancelled    another thread cancelled the wait
 `- BrokerUnavailable
     `- StoreUnavailable   the store does not answer, and the call was not let through
"""

from fleet.errors import BrokerUnavailable, FleetError


class LockBusy(FleetError):
    """The lock was not free in time; `retry_after_s` says when it is worth to ask again."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LockLost(FleetError):
    """The hold ended before its release, and another may have the lock: write nothing."""


class WaitCancelled(FleetError):
    """The wait for the lock was cancelled from elsewhere."""


class StoreUnavailable(BrokerUnavailable):
    """The store that keeps the locks does not answer, and without it nothing is let through."""
