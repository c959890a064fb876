"""Standard output and error that neither end nor hold up the process that writes to them.

Whoever reads them may go away, hang, or be a full disk. A line that cannot be written is dropped;
when the output flows again, the number of dropped lines is written first. For processes that serve:
a command whose output is its result ends when nobody reads it.

No thread writes here, so that a process may fork. Nothing is written that would block instead.
"""

import io
import os
import select
import stat
import sys
import time
from contextlib import suppress

#: A slow reader is waited for so long, but not again before something has been written.
TIMEOUT_S = 0.5
#: A pipe or socket that is ready takes this much at once. POSIX's smallest PIPE_BUF.
PIECE_BYTES = 512


def guard_output() -> None:
    """From now on this process prints and logs through such streams."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            fd = stream.fileno()
        except (AttributeError, OSError, ValueError):  # there is none, or it is no file
            continue
        if isinstance(getattr(stream, "buffer", None), Guarded):
            continue
        raw = Guarded(fd)
        if raw.ready():
            with suppress(OSError):  # nobody reads it already
                stream.flush()
        else:
            raw.before = stream  # to forget it would be to flush it
        guarded = io.TextIOWrapper(
            raw, encoding=stream.encoding, errors="backslashreplace", line_buffering=True
        )
        # Celery writes to the second one.
        setattr(sys, name, guarded)
        setattr(sys, f"__{name}__", guarded)


class Guarded(io.BufferedIOBase):
    """Writes to a file descriptor, or drops what it does not take; raises nothing."""

    def __init__(self, fd: int) -> None:
        self.name = fd
        self._out = _never_blocking(fd)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLOUT)
        self._dropped = 0  #: lines, since something was written
        self._cut = False  #: the last line that was written has no end
        self.before: object = None

    def ready(self) -> bool:
        """True when a write now would not block."""
        return bool(self._poll.poll(0))

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """A descriptor that does not block either, for who writes to it past this object."""
        return self._out

    def isatty(self) -> bool:
        """True for a terminal."""
        return os.isatty(self._out)

    def write(self, data: "bytes | bytearray | memoryview[int]", /) -> int:  # type: ignore[override]
        """Write all of it or drop the rest; answers how much was given."""
        given = told = bytes(data)
        if self._dropped:
            end = "\n" if self._cut else ""
            told = f"{end}({self._dropped} lines were dropped: nobody took them)\n".encode() + given
        written = self._put(told, 0.0 if self._dropped else TIMEOUT_S)
        if written == len(told):
            self._dropped, self._cut = 0, False
        else:
            # A notice that was cut short is told again, of all.
            self._dropped += max(given.count(b"\n"), 1)
            self._cut = self._cut or written > 0
        return len(given)

    def _put(self, data: bytes, patience_s: float) -> int:
        """How much of it was taken."""
        written, until = 0, time.monotonic() + patience_s
        while written < len(data):
            left_ms = max(0, int((until - time.monotonic()) * 1000))
            try:
                if not self._poll.poll(left_ms):
                    break
                written += os.write(self._out, data[written : written + PIECE_BYTES])
            except BlockingIOError:
                if time.monotonic() >= until:
                    break
            except OSError:
                break
        return written


def _never_blocking(fd: int) -> int:
    """The same file without blocking, where the system allows that: else `fd`.

    By a description of its own, because other processes share the flags of `fd`.
    """
    with suppress(OSError):
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            if sys.platform == "linux":  # elsewhere it would be the same description
                return os.open(f"/proc/self/fd/{fd}", flags)
    return fd
