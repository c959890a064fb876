"""A program in a pseudo-terminal of its own: started, read, written to, and ended for good."""

import contextlib
import errno
import os
import selectors
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleet.system.process_tags import ProcessTag, kill_tagged, of_this_process, signs
from tasks.terminal.screen import COLUMNS, ROWS

#: Between SIGTERM and SIGKILL; with a moment to stop by Ctrl-C it is below the hard limit's margin.
TERM_TIMEOUT_S = 2.0
#: Why a program cannot be run now, and perhaps can be later.
PASSING = frozenset(
    {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ETIMEDOUT}
)
#: After SIGKILL only the kernel's own work is left.
KILL_TIMEOUT_S = 5.0
#: Between the end of its output and its own.
END_TIMEOUT_S = 0.5
#: An interpreter that becomes the program takes a fiftieth of a second on an idle core.
START_TIMEOUT_S = 20.0
CHUNK = 65536
#: What one line may hold of a program that reads line by line; the rest would be thrown away.
LINE_BYTES_MAX = 4095 if sys.platform == "linux" else 1023

_START = str(Path(__file__).with_name("start.py"))
#: Where termios keeps the local modes.
_LOCAL_MODES = 3


class TerminalProgram:
    """One life of a program. The process that made it must end it."""

    def __init__(
        self, command: Sequence[str], *, cwd: str | None, environment: Mapping[str, str]
    ) -> None:
        """Raises OSError when it cannot be run."""
        marked = {**environment, ProcessTag.TERMINAL.value: of_this_process()}
        self._master, slave = os.openpty()
        told, tell = os.pipe()
        try:
            termios.tcsetwinsize(slave, (ROWS, COLUMNS))
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", _START, str(tell), str(os.getpid()), *command],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=cwd,
                env=marked,
                start_new_session=True,
                pass_fds=(tell, *signs()),
            )
        except BaseException:
            os.close(told)
            os.close(self._master)
            raise
        finally:
            os.close(slave)
            os.close(tell)
        os.set_blocking(self._master, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._master, selectors.EVENT_READ)
        self._open = True
        try:
            if number := _told(told):
                raise OSError(number, os.strerror(number), command[0])
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """Its process, which leads its session."""
        return self._process.pid

    @property
    def ending(self) -> str | None:
        """How it has ended; None while it can be talked to."""
        code = self._process.poll()
        if code is None:
            return None if self._open else "it closed its terminal"
        return f"it ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"

    @property
    def reads_lines(self) -> bool:
        """True while the terminal gathers a line for it, as it does unless told otherwise."""
        try:
            modes: int = termios.tcgetattr(self._master)[_LOCAL_MODES]
        except termios.error:
            return False
        return bool(modes & termios.ICANON)

    def read(self, wait_s: float) -> bytes:
        """What it has printed; nothing when nothing comes in that time."""
        if not self._open:
            time.sleep(min(wait_s, 0.01))
            return b""
        if not self._selector.select(wait_s):
            return b""
        try:
            piece = os.read(self._master, CHUNK)
        except BlockingIOError:
            return b""
        except OSError:  # Linux says that all of its ends are closed by EIO
            piece = b""
        if not piece:
            self._open = False
            # Most close it by ending, which takes the kernel another moment.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_TIMEOUT_S)
        return piece

    def write(self, data: bytes) -> int:
        """Type as much of it as is taken now; how many bytes that were."""
        try:
            return os.write(self._master, data[:CHUNK])
        except BlockingIOError:
            return 0
        except OSError:
            self._open = False
            return 0

    def end(self) -> None:
        """Leave nothing of it: asked first, then killed, and so is all that it has started."""
        if self._process.poll() is None:
            # The first is what a terminal that is closed sends; interactive shells heed no other.
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCONT):
                self._signal(number)
            # It may be stuck in printing.
            until = time.monotonic() + TERM_TIMEOUT_S
            while self._process.poll() is None and time.monotonic() < until:
                self.read(0.02)
        self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_TIMEOUT_S)
        if self._master >= 0:
            self._selector.close()
            os.close(self._master)  # the rest of its session hears that the terminal is gone
        self._master, self._open = -1, False
        kill_tagged(ProcessTag.TERMINAL, os.getpid())

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _told(told: int) -> int:
    """The error number that came instead of the program; 0 when it runs. Closes the descriptor."""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(told, selectors.EVENT_READ)
            if not selector.select(START_TIMEOUT_S):
                return errno.ETIMEDOUT
        return int(os.read(told, 16) or 0)
    finally:
        os.close(told)
