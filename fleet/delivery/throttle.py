"""How long a receiver is left in peace after each try, by how the tries went.

The numbers are those of the relay broker that this follows: a failure makes the next wait longer at
once, success makes it shorter only when it lasts, and what cannot be verified says neither. The
same table is in `_delivery.lua`, for receivers that all workers share.
"""

from dataclasses import dataclass, replace
from typing import Literal

#: `ack`: it was taken. `unverified`: it was handed over, and nobody can say more. `failed`: it was
#: not handed over.
Sample = Literal["ack", "unverified", "failed"]

#: After so many failures in a row; then DELAY_MOST_MS. The first is also the least.
DELAYS_MS = (100, 200, 500, 1000, 2000)
DELAY_MOST_MS = 5000
#: Successes in a row that halve the delay.
STREAK = 3


@dataclass(frozen=True, slots=True)
class Throttle:
    """What is known of one receiver."""

    delay_ms: int = DELAYS_MS[0]
    failures: int = 0  #: since the last success
    streak: int = 0  #: successes in a row since the delay was last halved

    def after(self, sample: Sample) -> "Throttle":
        """The same receiver after one more try."""
        if sample == "unverified":
            return replace(self, streak=0)
        if sample == "failed":
            failures = self.failures + 1
            known = failures <= len(DELAYS_MS)
            return Throttle(DELAYS_MS[failures - 1] if known else DELAY_MOST_MS, failures)
        if self.streak + 1 < STREAK:
            return Throttle(self.delay_ms, 0, self.streak + 1)
        return Throttle(max(DELAYS_MS[0], self.delay_ms // 2))
