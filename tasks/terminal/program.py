"""A program in a pseudo-terminal of its own: started, read, written to, and stopped for good."""

import contextlib
import errno
import os
import platform
import selectors
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleet.system.process_tags import ProcessTag, kill_tagged, tag_descriptors, tag_value
from tasks.terminal.screen import COLUMNS, ROWS

#: Between SIGTERM and SIGKILL; with a moment to stop by Ctrl-C it is below the hard limit's margin.
TERM_TIMEOUT_S = 2.0
#: Errors of a start that may pass.
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
#: The longest line for a program that reads line by line; the kernel drops the rest.
LINE_BYTES_MAX = 4095 if sys.platform == "linux" else 1023

_START = str(Path(__file__).with_name("start.py"))
#: The number of the system call `read`.
_READ_CALL = {"x86_64": "0", "aarch64": "63"}.get(platform.machine())
#: Where termios keeps the local modes.
_LOCAL_MODES = 3


class TerminalProgram:
    """One life of a program. The process that made it must stop it."""

    def __init__(
        self, command: Sequence[str], *, cwd: str | None, environment: Mapping[str, str]
    ) -> None:
        """Start the program. Raises OSError when it cannot be run."""
        tagged = {**environment, ProcessTag.TERMINAL.value: tag_value()}
        self._master, slave = os.openpty()
        self._name = os.ttyname(slave)
        errors, errors_end = os.pipe()
        try:
            termios.tcsetwinsize(slave, (ROWS, COLUMNS))
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", _START, str(errors_end), str(os.getpid()), *command],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=cwd,
                env=tagged,
                start_new_session=True,
                pass_fds=(errors_end, *tag_descriptors()),
            )
        except BaseException:
            os.close(errors)
            os.close(self._master)
            raise
        finally:
            os.close(slave)
            os.close(errors_end)
        os.set_blocking(self._master, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._master, selectors.EVENT_READ)
        self._open = True
        try:
            if number := _start_error(errors):
                raise OSError(number, os.strerror(number), command[0])
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The pid of the program, which leads its session."""
        return self._process.pid

    @property
    def ending(self) -> str | None:
        """How the program has ended, as a clause; None while it can be typed to."""
        code = self._process.poll()
        if code is None:
            return None if self._open else "it closed its terminal"
        return f"it ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"

    @property
    def succeeded(self) -> bool:
        """True when the program has ended with exit code 0."""
        return self._process.poll() == 0

    @property
    def awaits_input(self) -> bool:
        """True while the program's foreground process is blocked in a read of the terminal.

        Known on Linux, of programs that read it without waiting for anything else beside.
        """
        try:
            leader = Path(f"/proc/{os.tcgetpgrp(self._master)}")
            call, first, *_ = (leader / "syscall").read_text().split()
            source = os.readlink(leader / "fd" / str(int(first, 16)))
        except (OSError, ValueError):
            return False
        return call == _READ_CALL and source == self._name

    @property
    def reads_lines(self) -> bool:
        """True while the terminal gathers a line for the program, as terminals do by default."""
        try:
            modes: int = termios.tcgetattr(self._master)[_LOCAL_MODES]
        except termios.error:
            return False
        return bool(modes & termios.ICANON)

    def read(self, wait_s: float) -> bytes:
        """The output that comes within `wait_s`; empty when there is none."""
        if not self._open:
            time.sleep(min(wait_s, 0.01))
            return b""
        if not self._selector.select(wait_s):
            return b""
        try:
            piece = os.read(self._master, CHUNK)
        except BlockingIOError:
            return b""
        except OSError:  # EIO: on Linux all other ends are closed
            piece = b""
        if not piece:
            self._open = False
            # Most programs close it by ending, which takes the kernel another moment.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_TIMEOUT_S)
        return piece

    def write(self, data: bytes) -> int:
        """Type as much as is accepted now; the number of bytes."""
        try:
            return os.write(self._master, data[:CHUNK])
        except BlockingIOError:
            return 0
        except OSError:
            self._open = False
            return 0

    def stop(self) -> None:
        """Stop the program, by SIGTERM, then by SIGKILL, and kill all that it has started."""
        if self._process.poll() is None:
            # A closed terminal sends SIGHUP; interactive shells heed no other signal.
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCONT):
                self._signal(number)
            # It may be blocked by its output.
            until = time.monotonic() + TERM_TIMEOUT_S
            while self._process.poll() is None and time.monotonic() < until:
                self.read(0.02)
        self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_TIMEOUT_S)
        if self._master >= 0:
            self._selector.close()
            os.close(self._master)  # the rest of its session gets SIGHUP
        self._master, self._open = -1, False
        kill_tagged(ProcessTag.TERMINAL, os.getpid())

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _start_error(errors: int) -> int:
    """The error number of a failed start; 0 when the program runs. Closes the descriptor."""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(errors, selectors.EVENT_READ)
            if not selector.select(START_TIMEOUT_S):
                return errno.ETIMEDOUT
        return int(os.read(errors, 16) or 0)
    finally:
        os.close(errors)
