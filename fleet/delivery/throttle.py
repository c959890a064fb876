"""The delay before a receiver's next attempt, by the results of its earlier attempts.

The numbers are those of the relay broker that this follows. A failure lengthens the delay at once,
success shortens it only when it lasts, and an unverified attempt does neither. The same table is in
`_delivery.lua`, for receivers that all workers share.
"""

from dataclasses import dataclass, replace
from typing import Literal

#: `ack`: confirmed. `unverified`: delivered, but not confirmed. `failed`: not delivered.
AttemptKind = Literal["ack", "unverified", "failed"]

#: Delay after one failure, two in a row, and so on; then DELAY_MOST_MS. The first is the least.
DELAYS_MS = (100, 200, 500, 1000, 2000)
DELAY_MOST_MS = 5000
#: Successes in a row that halve the delay.
STREAK = 3


@dataclass(frozen=True, slots=True)
class Throttle:
    """The record of one receiver."""

    delay_ms: int = DELAYS_MS[0]
    failures: int = 0  #: since the last success
    streak: int = 0  #: successes in a row since the delay was last halved

    def after(self, kind: AttemptKind) -> "Throttle":
        """The same receiver after one more attempt."""
        if kind == "unverified":
            return replace(self, streak=0)
        if kind == "failed":
            failures = self.failures + 1
            known = failures <= len(DELAYS_MS)
            return Throttle(DELAYS_MS[failures - 1] if known else DELAY_MOST_MS, failures)
        if self.streak + 1 < STREAK:
            return Throttle(self.delay_ms, 0, self.streak + 1)
        return Throttle(max(DELAYS_MS[0], self.delay_ms // 2))
