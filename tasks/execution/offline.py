"""Runs spooled events while the broker is away; the drainer starts it by `OFFLINE_COMMAND`.

Turns run as in a worker, from the spool's ledger (`fleet.intake.spool.runs`): one at a time for
each agent, with soft and hard limit, journalled. This process imports the agents' libraries, stays
single-threaded and forks a child for each agent that has work. So a hung agent blocks no other. The
process stops when the broker is back or its standard input ends; running turns then have `drain_s`
to end.

It locks the agents whose turns it runs (`fleet.system.agent_lock`) until the ledger has the
outcomes. So no worker begins another turn before. When no turn runs any more it closes the file
that its argument names, a lock that it got from its drainer, and waits to be ended.
"""

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
from fleet.config.settings import Settings, load
from fleet.errors import BrokerUnavailable, Fenced, FleetError
from fleet.ledger import Ending, Failure
from fleet.quiet_log import guard_log
from fleet.runtime import Runtime
from fleet.system.agent_lock import TurnLock
from fleet.system.environments import receive_secrets
from fleet.system.parent_death import set_parent_death_signal
from fleet.system.process_group import kill_child
from fleet.system.process_tags import ProcessTag, tag_environment
from tasks.execution import turns
from tasks.execution.preload import preload
from tasks.limits import THREAD_CALLS

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
    _children: dict[str, int] = field(default_factory=dict)  #: agent -> pid
    _not_before: dict[str, float] = field(default_factory=dict)
    _locks: dict[str, TurnLock] = field(default_factory=dict)  #: by agent, or by pool
    _kill_at: float = 0.0  #: once it is to stop

    def run(self) -> None:
        """Run until the broker is back, or a request to stop, and the last turn has ended."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        while not self._is_over():
            self._reap()
            self._enforce_hard_limits()
            if not self._kill_at:
                self._start_waiting()
        # What was cut short has no fault of its own, also where no drainer lives to say so.
        self.runtime.spool_ledger.requeue()

    def _stop(self, *_signal: object) -> None:
        self._kill_at = self._kill_at or time.monotonic() + self.runtime.settings.drain_s

    def _is_over(self) -> bool:
        """Wait a moment; True once every child has ended after a request to stop."""
        time.sleep(POLL_INTERVAL_S)
        if self.runtime.breaker.closed or select.select([sys.stdin], [], [], 0)[0]:
            self._stop()
        if self._kill_at and time.monotonic() > self._kill_at:
            for pid in self._children.values():
                kill_child(pid)
        return bool(self._kill_at) and not self._children

    def _reap(self) -> None:
        for agent, pid in list(self._children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self._children[agent]
            kill_child(pid)  # and what its tools started
            if status:
                self._not_before[agent] = time.monotonic() + RETRY_DELAY_S

    def _start_waiting(self) -> None:
        now = time.monotonic()
        for agent in self.runtime.spool_ledger.waiting():
            if agent in self._children or self._not_before.get(agent, 0.0) > now:
                continue
            # Then no worker of this machine can run turns of the agent.
            name = _lock_name(self.runtime.settings, agent)
            lock = self._locks.setdefault(name, TurnLock(self.runtime.settings.data_dir, name))
            if not lock.acquire():
                self._not_before[agent] = now + RETRY_DELAY_S
                continue
            pid = os.fork()
            if not pid:
                _serve(agent)
            self._children[agent] = pid

    def _enforce_hard_limits(self) -> None:
        """Kill a child past its hard limit, and commit its outcome here."""
        if not self._children:
            return
        for running in self.runtime.spool_ledger.running():
            limit_s = self.runtime.settings.hard_limit_s(running.agent)
            child = self._children.get(running.agent)
            if running.since.age_s() > limit_s and child is not None:
                kill_child(child)
                ending = Ending(failure=Failure.past_hard_limit(limit_s))
                self.runtime.spool_ledger.end_active(running.dispatch_id, ending)


def main() -> int:
    """Run the spool of this process's configuration; returns the exit code."""
    guard_log()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    receive_secrets()
    lock = int(sys.argv[1])
    os.set_inheritable(lock, False)
    opened = Runtime(load())
    # Before the forks: seconds of imports, on pages that the children share.
    preload(opened.settings.agents.values())
    OfflineRunner(opened).run()
    os.close(lock)
    # Now the drainer imports the outcomes, and then ends this process.
    select.select([sys.stdin], [], [], IMPORT_TIMEOUT_S)
    return 0


def _lock_name(settings: Settings, agent: str) -> str:
    """The lock that the workers of an agent share here: its own, or its pool's."""
    pool = settings.agents[agent].pool
    return agent if pool is None else f"pool.{pool}"


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
        if THREAD_CALLS.running:  # it ends with this process
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
