"""Starts and ends the process that runs kept events while the broker is away
(`tasks.execution.offline`).

One process for a data folder, told by a lock that it and all that it forked hold: an event is not
handed over before the last turn has ended. It ends with the keeper that started it, by the pipe
that is its standard input; what it was in the middle of then goes on from its journal elsewhere.
"""

import logging
import select
import subprocess
import sys
import time
from pathlib import Path

from fleet.broker.breaker import Breaker
from fleet.config.settings import Settings
from fleet.intake.spool.file import SpoolFull, unusable
from fleet.intake.spool.runs import SpoolLedger
from fleet.system import file_lock
from fleet.system.process_group import kill_session

logger = logging.getLogger(__name__)

#: What it is called; `fleet` knows nothing of `tasks`.
MODULE = "tasks.execution.offline"
#: What it says when no turn runs any more.
DRAINED = b"drained\n"
#: Between two starts of a process that ended by itself.
RETRY_DELAY_S = 5.0
#: How long turns may go on when this process ends, which has little time itself.
CLOSE_S = 5.0
POLL_INTERVAL_S = 0.05
#: Beyond drain_s: to kill what did not end, and to write that down.
STOP_MARGIN_S = 5.0


def lock_of(folder: Path) -> Path:
    """The lock that the process of this spool holds while it, or a turn of it, lives."""
    return folder / "direct.lock"


def acquire(folder: Path) -> int | None:
    """The lock, to be kept open; None while another has it. Raises SpoolFull."""
    try:
        return file_lock.acquire(lock_of(folder))
    except OSError as error:
        raise SpoolFull(unusable(error)) from error


def is_running(folder: Path) -> bool:
    """True while a process of this spool, or a turn of it, lives. Raises SpoolFull."""
    try:
        return file_lock.is_held(lock_of(folder))
    except OSError as error:
        raise SpoolFull(unusable(error)) from error


class OfflineProcess:
    """For the one keeper of a data folder; not safe to share between threads."""

    def __init__(self, settings: Settings, breaker: Breaker, runs: SpoolLedger) -> None:
        self._breaker = breaker
        self._runs = runs
        #: By then every worker that lost the broker has ended its turn, and itself.
        self._after_s = settings.lease_ttl_s
        self._drain_s = settings.drain_s
        self._folder = settings.data_dir.absolute() / "spool"
        self._process: subprocess.Popen[bytes] | None = None
        self._due = 0.0
        self._kill_at = 0.0

    def run_if_needed(self) -> None:
        """While the broker is away: have the process run if there is anything for it to do."""
        if self._process is not None:
            if self._is_at_work():
                return
            self._bury()
        if time.monotonic() < self._due or not self._is_time() or not self._runs.waiting():
            return
        if is_running(self._folder):
            return  # that of an earlier keeper is still ending
        self._due = time.monotonic() + RETRY_DELAY_S
        self._kill_at = 0.0
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        logger.warning("the broker is away: kept events run here, by process %d", self._process.pid)

    def drain(self) -> bool:
        """The broker is back: True once no turn runs from the spool any more; ask again else.

        The agents whose events ran here are held until `end`.
        """
        if self._process is not None:
            self._tell()
            if self._is_at_work():
                return False
            if self._process.poll() is None and self._is_drained():
                return True
            self._bury()
        return not is_running(self._folder)

    def stop(self) -> None:
        """What became of the turns is handed over: let the agents go."""
        if self._process is not None:
            self._bury()

    def close(self) -> None:
        """Have it end soon; what it has in hand goes on from the journal."""
        if self._process is None:
            return
        self._tell()
        until = time.monotonic() + CLOSE_S
        while self._is_at_work() and time.monotonic() < until:
            time.sleep(POLL_INTERVAL_S)
        self._bury()

    def _tell(self) -> None:
        """Ask it, once, to end its turns."""
        assert self._process is not None  # noqa: S101 - both callers looked
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
            self._kill_at = time.monotonic() + self._drain_s + STOP_MARGIN_S

    def _is_at_work(self) -> bool:
        """Whether it runs turns, or may begin some, and has time left for that."""
        assert self._process is not None  # noqa: S101 - the callers looked
        if self._process.poll() is not None or self._is_drained():
            return False
        return not self._kill_at or time.monotonic() < self._kill_at

    def _is_drained(self) -> bool:
        assert self._process is not None  # noqa: S101 - the caller looked
        told = self._process.stdout
        return told is not None and bool(select.select([told], [], [], 0)[0])

    def _bury(self) -> None:
        """Leave nothing of it."""
        assert self._process is not None  # noqa: S101 - the callers looked
        code = self._process.poll()
        # Else it died of what it ran, and that counts.
        cut_short = bool(self._kill_at) or (code is None and self._is_drained())
        kill_session(self._process.pid)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if code:
            logger.error("the process that ran kept events ended with %d", code)
        self._process = None
        if cut_short:
            self._runs.requeue()

    def _is_time(self) -> bool:
        state, _ = self._breaker.read_state()
        return state.open and self._breaker.age_s(state) >= self._after_s
