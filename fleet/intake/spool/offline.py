"""Starts and stops the process that runs spooled events while the broker is away.

A data folder has one such process. It and its children hold a lock, so no event is imported before
the last turn has ended. The process ends with the drainer that started it, by the pipe that is its
standard input. Interrupted turns go on from their journals elsewhere.
"""

import logging
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from fleet.broker.breaker import Breaker
from fleet.config.settings import Settings
from fleet.intake.spool.folder import usable
from fleet.intake.spool.runs import SpoolLedger
from fleet.system import file_lock
from fleet.system.process_group import kill_session

logger = logging.getLogger(__name__)

#: The process writes this when no turn runs any more.
DRAINED = b"drained\n"
#: Between two starts of a process that ended by itself.
RETRY_DELAY_S = 5.0
#: For turns that run when this process, which has little time itself, ends.
CLOSE_S = 5.0
POLL_INTERVAL_S = 0.05
#: Beyond drain_s: to kill what did not end, and to record that.
STOP_MARGIN_S = 5.0


def lock_of(folder: Path) -> Path:
    """The file that the process of this spool, and each of its turns, holds locked."""
    return folder / "direct.lock"


def acquire(folder: Path) -> int | None:
    """Acquire the lock, to be kept open; None while another process has it. Raises SpoolFull."""
    with usable():
        return file_lock.acquire(lock_of(folder))


def is_running(folder: Path) -> bool:
    """True while a process of this spool, or a turn of it, lives. Raises SpoolFull."""
    with usable():
        return file_lock.is_held(lock_of(folder))


class OfflineProcess:
    """For the working drainer of a data folder; not safe to share between threads."""

    def __init__(
        self, settings: Settings, breaker: Breaker, runs: SpoolLedger, command: Sequence[str]
    ) -> None:
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
            if self._may_run_turns():
                return
            self._remove()
        if time.monotonic() < self._due or not self._is_time() or not self._runs.waiting():
            return
        if is_running(self._folder):
            return  # the process of an earlier drainer is still ending
        self._due = time.monotonic() + RETRY_DELAY_S
        self._kill_at = 0.0
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        logger.warning(
            "the broker is away: spooled events run here, in process %d", self._process.pid
        )

    def drain(self) -> bool:
        """True once no turn runs from the spool any more; for when the broker is back.

        The agents whose events ran here stay locked until `stop`.
        """
        if self._process is not None:
            self._request_end()
            if self._may_run_turns():
                return False
            if self._process.poll() is None and self._is_drained():
                return True
            self._remove()
        return not is_running(self._folder)

    def stop(self) -> None:
        """Release the agents: the outcomes of the turns are imported."""
        if self._process is not None:
            self._remove()

    def close(self) -> None:
        """Stop the process soon; its turns go on from their journals."""
        if self._process is None:
            return
        self._request_end()
        until = time.monotonic() + CLOSE_S
        while self._may_run_turns() and time.monotonic() < until:
            time.sleep(POLL_INTERVAL_S)
        self._remove()

    def _request_end(self) -> None:
        """Request, once, that the process ends its turns."""
        assert self._process is not None  # noqa: S101 - the callers checked
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
            self._kill_at = time.monotonic() + self._drain_s + STOP_MARGIN_S

    def _may_run_turns(self) -> bool:
        """True while the process runs turns, or may begin some, and has time left for them."""
        assert self._process is not None  # noqa: S101 - the callers checked
        if self._process.poll() is not None or self._is_drained():
            return False
        return not self._kill_at or time.monotonic() < self._kill_at

    def _is_drained(self) -> bool:
        assert self._process is not None  # noqa: S101 - the caller checked
        output = self._process.stdout
        return output is not None and bool(select.select([output], [], [], 0)[0])

    def _remove(self) -> None:
        """Kill the process and everything it started."""
        assert self._process is not None  # noqa: S101 - the callers checked
        code = self._process.poll()
        # Otherwise it died of a turn, which counts as a loss.
        cut_short = bool(self._kill_at) or (code is None and self._is_drained())
        kill_session(self._process.pid)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if code:
            logger.error("the process that ran spooled events ended with %d", code)
        self._process = None
        if cut_short:
            self._runs.requeue()

    def _is_time(self) -> bool:
        state, _ = self._breaker.read_state()
        return state.open and self._breaker.age_s(state) >= self._after_s
