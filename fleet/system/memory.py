"""The memory that this machine, or the container around this process, has."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def machine_bytes() -> int:
    """The smallest limit that applies to this process."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *group_limits()])


def group_limits(own: Path = _OWN_GROUP, groups: Path = _GROUPS) -> Iterator[int]:
    """The limits of the control groups around this process; none where there are none."""
    with suppress(OSError):
        # A line is "number:controllers:path"; version 2 has one line, and no controllers.
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            if controllers and "memory" not in controllers.split(","):
                continue
            top = groups / "memory" if controllers else groups
            inner = PurePosixPath(path.lstrip("/"))
            for folder in (inner, *inner.parents):
                with suppress(OSError, ValueError):  # no such file, or "max"
                    yield int((top / folder / name).read_text())
