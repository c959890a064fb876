"""Pauses between attempts that fail."""

import random
from dataclasses import dataclass

#: Enough to reach any longest pause, and far from the end of a float.
_DOUBLINGS_MAX = 60


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `min_s` to `max_s`; a count of failures is its state, and 0 its reset.

    `jitter`: the bounds of a random factor, so that many who failed at once do not return at once.
    """

    min_s: float
    max_s: float
    jitter: tuple[float, float] = (1.0, 1.0)

    def after_s(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        doubled = 2.0 ** min(max(failures - 1, 0), _DOUBLINGS_MAX)
        pause_s = min(self.max_s, self.min_s * doubled)
        return pause_s * random.uniform(*self.jitter)  # noqa: S311 - no secret
