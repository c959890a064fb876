"""Runs kept events while the broker is away: `python -m tasks.execution.offline`, which the keeper
starts.

The same turns as a worker's, from the spool's ledger (`fleet.intake.spool.runs`): one at a time
for each agent, with soft and hard limit, journalled. This process imports what the agents need,
stays single-threaded and forks a child for each agent that has work, so a hung one blocks no
other. It stops when the broker is back or its standard input ends: what runs then has `drain_s` to
end.

It holds the locks of the agents that it ran (`fleet.system.agent_lock`), and keeps them until the
ledger knows what became of their events: so no worker begins another before. It says on its
standard output when no turn runs any more, and then waits to be ended.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import NoReturn

from fleet import runtime
from fleet.errors import BrokerUnavailable, Fenced, FleetError
from fleet.intake.spool.components import SpoolComponents
from fleet.intake.spool.offline import DRAINED, acquire
from fleet.intake.spool.runs import Running
from fleet.ledger import Ending, Failure, FailureStage
from fleet.system import process_identity
from fleet.system.agent_lock import TurnLock
from fleet.system.output_guard import guard_output
from fleet.system.parent_death import set_parent_death_signal
from fleet.system.process_tags import ProcessTag, kill_tagged, tag_environment
from tasks.execution import turns
from tasks.tools import abandoned

logger = logging.getLogger(__name__)

#: How soon a new event is begun, an ended child seen, and the end of the outage.
POLL_INTERVAL_S = 0.1
#: A child that found the agent's lock taken, or failed: not before this again.
RETRY_DELAY_S = 0.5
KILL_TIMEOUT_S = 2.0
#: To hand over ten thousand events takes seconds; after this the agents are let go in any case.
HAND_OVER_S = 120.0


@dataclass(slots=True)
class OfflineRunner:
    """One child for each agent that has work."""

    shelter: SpoolComponents
    _children: dict[int, str] = field(default_factory=dict)  #: pid -> agent
    _not_before: dict[str, float] = field(default_factory=dict)
    _locks: dict[str, TurnLock] = field(default_factory=dict)
    _told: bool = False
    _kill_at: float = 0.0

    def run(self) -> None:
        """Until there is nothing to do here any more."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        while not self._is_over():
            self._reap()
            self._end_what_runs_on()
            if not self._kill_at:
                self._start_what_waits()
        _wait_to_be_ended()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._told = True

    def _is_over(self) -> bool:
        """Wait a moment; True when it was told to stop and every child has ended."""
        if not self._told:
            readable, _, _ = select.select([sys.stdin], [], [], POLL_INTERVAL_S)
            self._told = bool(readable) or self.shelter.breaker.closed
        else:
            time.sleep(POLL_INTERVAL_S)
        if self._told and not self._kill_at:
            self._kill_at = time.monotonic() + runtime.settings().drain_s
        if self._kill_at and time.monotonic() > self._kill_at:
            for pid in list(self._children):
                self._kill(pid)
        return bool(self._kill_at) and not self._children

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            agent = self._children.pop(pid, "")
            _clear_up(pid)
            if status:
                self._not_before[agent] = time.monotonic() + RETRY_DELAY_S

    def _start_what_waits(self) -> None:
        now = time.monotonic()
        for agent in self.shelter.runs.waiting():
            if agent in self._children.values() or self._not_before.get(agent, 0.0) > now:
                continue
            if not self._is_ours(agent):
                self._not_before[agent] = now + RETRY_DELAY_S
                continue
            # No child may inherit an open file of SQLite, nor what it believes to have locked.
            self.shelter.spool.close()
            pid = os.fork()
            if not pid:
                _serve(agent)
            self._children[pid] = agent

    def _is_ours(self, agent: str) -> bool:
        """Whether no worker of this machine runs its turns; from then on none does."""
        if agent not in self._locks:
            self._locks[agent] = TurnLock(runtime.settings().data_dir, agent)
        return self._locks[agent].acquire()

    def _end_what_runs_on(self) -> None:
        """The hard limit: the child is killed, and its outcome written here."""
        if not self._children:
            return
        for running in self.shelter.runs.running():
            limit_s = runtime.settings().hard_limit_s(running.agent)
            pids = [pid for pid, agent in self._children.items() if agent == running.agent]
            if running.for_s > limit_s and pids:
                self._kill(pids[0])
                self.shelter.runs.end_active(running, _past(running, limit_s))

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        process_identity.await_end(pid, KILL_TIMEOUT_S)
        _clear_up(pid)


def main() -> int:
    """Serve the spool of this process's configuration; the exit code."""
    guard_output()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    runtime.guard()
    # Not this process's own, which a child is to open anew.
    shelter = SpoolComponents.of(runtime.settings())
    if shelter.submissions is None:
        logger.error("spool.direct is off: nothing runs from the spool")
        return 1
    lock = acquire(shelter.spool.folder)
    if lock is None:
        logger.warning("another process runs what is kept here")
        return 0
    if any(agent.runner == "llm" for agent in runtime.settings().agents.values()):
        # Before the forks: seconds of imports, on pages that the children share.
        from tasks.execution.preload import preload

        preload()
    OfflineRunner(shelter).run()
    return 0


def _serve(agent: str) -> NoReturn:
    """In a child: run what waits for one agent, then end."""
    code = 1
    try:
        os.setpgid(0, 0)
        set_parent_death_signal()
        tag_environment(ProcessTag.CHILD)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        code = _turns(agent)
    except FleetError as error:
        logger.warning("a turn of %s is left for later: %s", agent, error)
    except BaseException:
        logger.exception("the child that runs %s failed", agent)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _turns(agent: str) -> int:
    runs = runtime.spool_components().runs
    holder = f"{socket.gethostname()}:{os.getpid()}"
    if not turns.ensure_alone(agent):
        return 1
    while (claim := runs.claim(agent, os.getpid(), holder)) is not None:
        try:
            turns.execute(claim, runs, alarm=True)
        except (Fenced, BrokerUnavailable) as error:
            logger.warning("the turn of %s goes on later: %s", claim.dispatch_id, error)
            return 1
        if abandoned.running():  # it ends with this process
            return 0
    return 0


def _wait_to_be_ended() -> None:
    """Until what became of the turns is handed over, or nobody is there to do it."""
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), DRAINED)
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)  # its other end is closed: that is always told
    reader.poll(HAND_OVER_S * 1000)


def _past(running: Running, limit_s: float) -> Ending:
    return Ending(
        failure=Failure(
            stage=FailureStage.TIMEOUT,
            reason=f"the turn ran on past its hard limit of {limit_s:g} s and was killed",
            retryable=True,
            kind="TimeLimitExceeded",
        )
    )


def _clear_up(pid: int) -> None:
    """What the tools of a dead child started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    kill_tagged(ProcessTag.CHILD, pid)


if __name__ == "__main__":
    sys.exit(main())
