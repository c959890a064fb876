"""Runs spooled events while the broker is away; the drainer starts it by `OFFLINE_COMMAND`.

Turns run as in a worker, from the spool's ledger (`fleet.intake.spool.runs`): one at a time for
each agent, with soft and hard limit, journalled. This process imports the agents' libraries, stays
single-threaded and forks a child for each agent that has work. So a hung agent blocks no other. The
process stops when the broker is back or its standard input ends; running turns then have `drain_s`
to end.

It locks the agents whose turns it runs (`fleet.system.agent_lock`) until the ledger has the
outcomes. So no worker begins another turn before. When no turn runs any more it writes so to its
standard output, and waits to be ended.
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
from fleet.config.settings import load
from fleet.errors import BrokerUnavailable, Fenced, FleetError
from fleet.intake.spool.offline import DRAINED, acquire
from fleet.ledger import Ending, Failure
from fleet.runtime import Runtime
from fleet.system.agent_lock import TurnLock
from fleet.system.output_guard import guard_output
from fleet.system.parent_death import set_parent_death_signal
from fleet.system.process_group import kill_child
from fleet.system.process_tags import ProcessTag, tag_environment
from tasks.execution import turns
from tasks.execution.preload import preload
from tasks.tools import abandoned

logger = logging.getLogger(__name__)

#: Between two polls for a new event, an ended child, and the end of the outage.
POLL_INTERVAL_S = 0.1
#: Before the next child of an agent whose lock was taken, or whose child failed.
RETRY_DELAY_S = 0.5
#: Importing ten thousand events takes seconds; after this the agents are released in any case.
IMPORT_TIMEOUT_S = 120.0


@dataclass(slots=True)
class OfflineRunner:
    """Runs one child for each agent that has work."""

    runtime: Runtime  #: the parent's; a child opens its own
    _children: dict[int, str] = field(default_factory=dict)  #: pid -> agent
    _not_before: dict[str, float] = field(default_factory=dict)
    _locks: dict[str, TurnLock] = field(default_factory=dict)
    _stopping: bool = False
    _kill_at: float = 0.0

    def run(self) -> None:
        """Run until the broker is back, and the outcomes are imported."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        while not self._is_over():
            self._reap()
            self._enforce_hard_limits()
            if not self._kill_at:
                self._start_waiting()
        _await_import()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _is_over(self) -> bool:
        """Wait a moment; True once every child has ended after a request to stop."""
        if not self._stopping:
            readable, _, _ = select.select([sys.stdin], [], [], POLL_INTERVAL_S)
            self._stopping = bool(readable) or self.runtime.breaker.closed
        else:
            time.sleep(POLL_INTERVAL_S)
        if self._stopping and not self._kill_at:
            self._kill_at = time.monotonic() + self.runtime.settings.drain_s
        if self._kill_at and time.monotonic() > self._kill_at:
            for pid in list(self._children):
                kill_child(pid)
        return bool(self._kill_at) and not self._children

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            agent = self._children.pop(pid, "")
            kill_child(pid)  # and what its tools started
            if status:
                self._not_before[agent] = time.monotonic() + RETRY_DELAY_S

    def _start_waiting(self) -> None:
        now = time.monotonic()
        for agent in self.runtime.spool_ledger.waiting():
            if agent in self._children.values() or self._not_before.get(agent, 0.0) > now:
                continue
            if not self._lock(agent):
                self._not_before[agent] = now + RETRY_DELAY_S
                continue
            pid = os.fork()
            if not pid:
                _serve(agent)
            self._children[pid] = agent

    def _lock(self, agent: str) -> bool:
        """True once no worker of this machine can run turns of the agent."""
        if agent not in self._locks:
            self._locks[agent] = TurnLock(self.runtime.settings.data_dir, agent)
        return self._locks[agent].acquire()

    def _enforce_hard_limits(self) -> None:
        """Kill a child past its hard limit, and commit its outcome here."""
        if not self._children:
            return
        for running in self.runtime.spool_ledger.running():
            limit_s = self.runtime.settings.hard_limit_s(running.agent)
            pids = [pid for pid, agent in self._children.items() if agent == running.agent]
            if running.since.age_s() > limit_s and pids:
                kill_child(pids[0])
                ending = Ending(failure=Failure.past_hard_limit(limit_s))
                self.runtime.spool_ledger.end_active(running.dispatch_id, ending)


def main() -> int:
    """Run the spool of this process's configuration; returns the exit code."""
    guard_output()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    opened = Runtime(load())
    if not opened.spool.runs_offline:
        logger.error("spool.direct is off: nothing runs from the spool")
        return 1
    lock = acquire(opened.spool.folder)
    if lock is None:
        logger.warning("another process runs the events of this spool")
        return 0
    # Before the forks: seconds of imports, on pages that the children share.
    preload(opened.settings.agents.values())
    OfflineRunner(opened).run()
    return 0


def _serve(agent: str) -> NoReturn:
    """Run the waiting turns of one agent, and exit; in a child."""
    code = 1
    try:
        os.setpgid(0, 0)
        set_parent_death_signal()
        tag_environment(ProcessTag.CHILD)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        runtime.set_current(Runtime(load(), guarded=True))
        code = _turns(agent)
    except FleetError as error:
        logger.warning("a turn of %s is left for later: %s", agent, error)
    except BaseException:
        logger.exception("the child that runs %s failed", agent)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _turns(agent: str) -> int:
    runs = runtime.current().spool_ledger
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


def _await_import() -> None:
    """Wait until the outcomes are imported, or no drainer is left."""
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), DRAINED)
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)  # the closing of its other end is always reported
    reader.poll(IMPORT_TIMEOUT_S * 1000)


if __name__ == "__main__":
    sys.exit(main())
