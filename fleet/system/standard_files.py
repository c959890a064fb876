"""Standard input, output and error where the caller closed them.

Otherwise the next file that is opened, such as a lock, gets the number of standard output, and what
a child prints is written into it.
"""

import os
import sys


def open_missing() -> None:
    """Open each of the three that is closed on the null device."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number, as those before are open by now; inherited by children.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            stream = open(fd, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
