"""A token bucket for each caller; a batch may overdraw it."""

from dataclasses import dataclass, field
from time import monotonic

#: The capacity of a bucket, in seconds of its rate.
BURST_S = 2.0


@dataclass(slots=True)
class Bucket:
    """A bucket that gains `per_s` units a second and holds those of BURST_S, at least one."""

    per_s: float
    _level: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._level, self._at = self._top, monotonic()

    @property
    def _top(self) -> float:
        return max(1.0, self.per_s * BURST_S)

    def acquire(self) -> float:
        """Acquire one unit and return 0.0, or return the seconds until there is one."""
        now = monotonic()
        self._level = min(self._top, self._level + (now - self._at) * self.per_s)
        self._at = now
        if self._level < 1.0:
            return (1.0 - self._level) / self.per_s
        self._level -= 1.0
        return 0.0

    def overdraw(self, cost: float) -> None:
        """Charge an admitted request, even into debt; later requests wait until it is repaid.

        Otherwise a batch larger than the bucket could never pass.
        """
        self._level -= cost
