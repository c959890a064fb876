"""How much one caller may ask for: a bucket that fills at a rate, and may be overdrawn."""

from dataclasses import dataclass, field
from time import monotonic

#: A caller that was quiet may do this many seconds' worth at once.
BURST_S = 2.0


@dataclass(slots=True)
class Bucket:
    """`per_s` units flow in each second, up to BURST_S of them, and at least one."""

    per_s: float
    _level: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._level, self._at = self._top, monotonic()

    @property
    def _top(self) -> float:
        return max(1.0, self.per_s * BURST_S)

    def acquire(self) -> float:
        """Take one unit; 0.0 when it was there, else the seconds until it is."""
        now = monotonic()
        self._level = min(self._top, self._level + (now - self._at) * self.per_s)
        self._at = now
        if self._level < 1.0:
            return (1.0 - self._level) / self.per_s
        self._level -= 1.0
        return 0.0

    def overdraw(self, cost: float) -> None:
        """Take what a request costs that was let in; what is missing is paid back by waiting.

        Else a batch larger than the bucket could never pass.
        """
        self._level -= cost
