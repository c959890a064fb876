"""Starts and stops the process that runs spooled events while the broker is away.

A data folder has one such process. It and its children hold a lock, which its drainer acquired for
it, until the last turn has ended: no event is imported before. Then it only keeps its agents from
the workers, until it is stopped. The process ends with that drainer, by the pipe that is its
standard input. Interrupted turns go on from their journals elsewhere.
"""

import contextlib
import logging
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from fleet.broker.breaker import Breaker
from fleet.config.settings import Settings
from fleet.intake.spool.folder import usable
from fleet.intake.spool.runs import SpoolLedger
from fleet.system import file_lock
from fleet.system.environments import secrets_fd
from fleet.system.process_group import kill_session

logger = logging.getLogger(__name__)

#: Between two starts of a process that ended by itself.
RETRY_DELAY_S = 5.0
#: For turns that run when this process, which has little time itself, ends.
CLOSE_S = 5.0
#: Beyond drain_s: to kill what did not end.
STOP_MARGIN_S = 5.0


def acquire(folder: Path) -> int | None:
    """Acquire the lock of those that run turns of this spool, to be kept open; None while another
    process has it. Raises SpoolFull.
    """
    with usable():
        return file_lock.acquire(_lock_of(folder))


def is_running(folder: Path) -> bool:
    """True while a process runs turns of this spool, or may begin some. Raises SpoolFull."""
    with usable():
        return file_lock.is_held(_lock_of(folder))


class OfflineProcess:
    """For the working drainer of a data folder; not safe to share between threads."""

    def __init__(
        self, settings: Settings, breaker: Breaker, runs: SpoolLedger, command: Sequence[str]
    ) -> None:
        """`command` gets the number of the file that it is to keep open while turns run."""
        self._command = command
        self._breaker = breaker
        self._runs = runs
        #: By then every worker that lost the broker has ended its turn and exited.
        self._after_s = settings.lease_ttl_s
        self._drain_s = settings.drain_s
        self._folder = settings.data_dir.absolute() / "spool"
        self._process: subprocess.Popen[bytes] | None = None
        self._due = 0.0
        self._kill_at = 0.0

    def run_if_needed(self) -> None:
        """Start the process if it has anything to do; for while the broker is away."""
        if self._process is not None:
            if self._process.poll() is None and is_running(self._folder):
                return
            self.stop()
        if time.monotonic() < self._due or not self._is_time() or not self._runs.waiting():
            return
        lock = acquire(self._folder)
        if lock is None:
            return  # the process of an earlier drainer is still ending
        self._due, self._kill_at = time.monotonic() + RETRY_DELAY_S, 0.0
        try:
            self._process = subprocess.Popen(
                [*self._command, str(lock)],
                stdin=subprocess.PIPE,
                pass_fds=[lock, *secrets_fd()],
                start_new_session=True,
            )
        finally:
            os.close(lock)
        logger.warning(
            "the broker is away: spooled events run here, in process %d", self._process.pid
        )

    def drain(self) -> None:
        """Kill the process where its turns have not ended in time; for when the broker is back.

        It sees that itself. Its agents stay locked until `stop`.
        """
        if self._process is not None and is_running(self._folder):
            now = time.monotonic()
            self._kill_at = self._kill_at or now + self._drain_s + STOP_MARGIN_S
            if now > self._kill_at:
                self.stop()

    def close(self) -> None:
        """Stop the process soon; its turns go on from their journals."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_S)
        self.stop()

    def stop(self) -> None:
        """Kill the process and everything it started: its agents are released."""
        if self._process is None:
            return
        code = self._process.poll()
        kill_session(self._process.pid)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None
        if code:
            # It died of a turn, which counts as a loss.
            logger.error("the process that ran spooled events ended with %d", code)
        else:
            self._runs.requeue()

    def _is_time(self) -> bool:
        state, _ = self._breaker.read_state()
        return state.open and self._breaker.age_s(state) >= self._after_s


def _lock_of(folder: Path) -> Path:
    return folder / "direct.lock"
