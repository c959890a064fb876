"""A clock that nobody sets: it goes on while the machine is suspended, and a boot resets it."""

import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path


def boottime() -> float:
    """Seconds since the boot; where the system has no such clock, of one that only goes forth."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@cache
def boot_id() -> str:
    """Name the life of this clock; empty where the system has no name for it."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time that is written to a file."""

    wall: float  #: seconds since 1970, to be shown
    up: float  #: by `boottime`
    boot: str

    @classmethod
    def now(cls) -> "Moment":
        """The present moment."""
        return cls(time.time(), boottime(), boot_id())

    def age_s(self) -> float:
        """Seconds until now.

        Of an earlier boot only the machine's clock knows it; since then at least this boot's time
        has passed.
        """
        if self.boot == boot_id():
            return max(0.0, boottime() - self.up)
        return max(boottime(), time.time() - self.wall)
