"""Standard output and error that neither end nor delay the process that writes to them.

Their reader may go away, hang, or be a full disk. A line that cannot be written is dropped. When
the output flows again, the number of dropped lines is written first. For processes that serve: a
command whose output is its result ends when nobody reads it.

No thread writes here, so that a process may fork; a write that would block is dropped instead.
"""

import io
import os
import select
import stat
import sys
import time
from contextlib import suppress

#: How long a slow reader is waited for, once until something has been written again.
TIMEOUT_S = 0.5
#: A pipe or socket that is ready takes this much at once. POSIX's smallest PIPE_BUF.
PIECE_BYTES = 512


def guard_output() -> None:
    """Have this process print and log through such streams."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            fd = stream.fileno()
        except (AttributeError, OSError, ValueError):  # there is none, or it is not a file
            continue
        if isinstance(getattr(stream, "buffer", None), Guarded):
            continue
        raw = Guarded(fd)
        if raw.ready():
            with suppress(OSError):  # its reader is gone
                stream.flush()
        else:
            raw.before = stream  # kept: its destructor would flush it
        for place, guarded in ((name, raw), (f"__{name}__", _Past(fd))):
            text = io.TextIOWrapper(
                guarded, encoding=stream.encoding, errors="backslashreplace", line_buffering=True
            )
            setattr(sys, place, text)


def redirect_output(fd: int) -> None:
    """Have this process, and what it starts, write to `fd` in place of its output; closes `fd`."""
    for name in ("stdout", "stderr"):
        with suppress(OSError):  # its reader is gone
            getattr(sys, name).flush()
    for number in (1, 2):
        os.dup2(fd, number)
    os.close(fd)
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if isinstance(guarded := getattr(stream, "buffer", None), Guarded):
            guarded.reopen()


class Guarded(io.BufferedIOBase):
    """Writes to a file descriptor and drops the bytes that it does not accept; raises nothing."""

    def __init__(self, fd: int) -> None:
        self.name = fd
        self._out = _never_blocking(fd)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLOUT)
        self._dropped = 0  #: lines, since something was written
        self._cut = False  #: the last line written has no end
        self.before: object = None

    def reopen(self) -> None:
        """Go on with the file that has our descriptor now."""
        self._poll.unregister(self._out)
        if self._out != self.name:
            os.close(self._out)
        self._out = _never_blocking(self.name)
        self._poll.register(self._out, select.POLLOUT)
        self._dropped, self._cut = 0, False

    def ready(self) -> bool:
        """True when a write now would not block."""
        return bool(self._poll.poll(0))

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The file's own, for programs that inherit it: they take a short write for an error."""
        return self.name

    def isatty(self) -> bool:
        """True for a terminal."""
        return os.isatty(self._out)

    def write(self, data: "bytes | bytearray | memoryview[int]", /) -> int:  # type: ignore[override]
        """Write all of it or drop the rest; the number of bytes given."""
        given = text = bytes(data)
        if self._dropped:
            end = "\n" if self._cut else ""
            text = f"{end}({self._dropped} lines were dropped: nobody took them)\n".encode() + given
        written = self._put(text, 0.0 if self._dropped else TIMEOUT_S)
        if written == len(text):
            self._dropped, self._cut = 0, False
        else:
            # A notice that was cut short is written again, for all dropped lines.
            self._dropped += max(given.count(b"\n"), 1)
            self._cut = self._cut or written > 0
        return len(given)

    def _put(self, data: bytes, timeout_s: float) -> int:
        """The number of bytes accepted."""
        written, until = 0, time.monotonic() + timeout_s
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


class _Past(Guarded):
    """For Celery, which logs to this one, and writes past it in its handlers of signals."""

    def fileno(self) -> int:
        """A descriptor that does not block either."""
        return self._out


def _never_blocking(fd: int) -> int:
    """The same file without blocking, where the system allows it, otherwise `fd`.

    Opened anew, because other processes share the flags of `fd`.
    """
    with suppress(OSError):
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            if sys.platform == "linux":  # elsewhere it would be the same description
                return os.open(f"/proc/self/fd/{fd}", flags)
    return fd
