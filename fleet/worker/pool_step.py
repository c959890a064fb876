"""Steps that turn a `celery worker` into a worker of a pool.

    celery -A fleet worker -Q pool.support -c 8 -n support@%h

Each of its children takes the next runnable dispatch of any agent of the pool. The worker renews
the leases of their turns, keeps their hard limits, and looks after turns whose child has died.
"""

import logging
import os
import threading
import time
from typing import Any

from celery import bootsteps
from celery.worker.state import reserved_requests

from fleet import runtime
from fleet.errors import BrokerUnavailable
from fleet.ledger import Ending, Failure, LeaseToken, State
from fleet.store.calls import AgentCall
from fleet.system.agent_lock import TurnLock
from fleet.system.clock import boottime
from fleet.system.process_group import kill_child
from fleet.system.process_identity import has_ended
from fleet.worker.commands import follow_commands
from fleet.worker.guards import (
    LEASE_LOST_EXIT,
    LEASE_RETRY_DELAY_S,
    RENEW_RETRY_DELAY_S,
    close_breaker,
    die_with_lease,
    kill_leftovers,
    kill_turns,
    lease_store,
    look_at_store,
    notify_breaker,
    start_thread,
)
from fleet.worker.lease import SAFETY
from fleet.worker.pool_leases import PoolLeases
from fleet.worker.state import WORKER, RunningTurn

logger = logging.getLogger(__name__)

#: How late, at most, a hard limit is kept.
LIMIT_POLL_INTERVAL_S = 0.25
#: How soon a worker notices that another one of the pool, on its machine, has died.
WORKERS_POLL_INTERVAL_S = 0.5
#: A child takes less from the end of its turn in the ledger until it says so.
ENDED_S = 0.05
#: Held while a child is killed, until that is recorded: such a turn was not lost.
_KILLING = threading.Lock()


def open_leases(pool: str) -> PoolLeases:
    """This worker's place in a pool; made before it forks its children."""
    settings = runtime.current().settings
    publisher = runtime.current().wakeup_publisher
    notify = publisher.wake_pool if publisher else None
    return PoolLeases(lease_store(), settings, pool, WORKER.shared, notify)


class PoolStep(bootsteps.StartStopStep):
    """Joins the pool before the worker consumes, and checks its leases after each reconnect."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self.enabled = WORKER.pool is not None
        self._joined = False

    def start(self, consumer: Any) -> None:
        """Block until this worker has joined."""
        leases = WORKER.pool
        if leases is None:
            return
        if self._joined:
            if not _renew(leases):
                _exit_lost(leases)
            return
        _join(leases)
        self._joined = True
        logger.info("working for the pool %s", leases.pool)
        start_thread(_keep_renewing, leases)
        start_thread(_keep_hard_limits, leases)
        start_thread(die_with_lease, leases.shared)
        start_thread(_obey_commands, leases)

    def shutdown(self, consumer: Any) -> None:
        """Leave the pool; called after its children have ended."""
        if WORKER.pool is not None and self._joined:
            with _KILLING:
                kill_leftovers()
                _leave(WORKER.pool)


def _join(leases: PoolLeases) -> None:
    settings = runtime.current().settings
    lock = TurnLock(settings.data_dir, f"pool.{leases.pool}") if settings.runs_offline else None
    look_at_store(leases.store)
    while True:
        # While the broker is away the lock is theirs who run spooled events.
        closed = runtime.current().breaker.closed
        if lock is not None and not (closed and lock.acquire(shared=True)):
            close_breaker(leases.store)
            time.sleep(RENEW_RETRY_DELAY_S)
            continue
        try:
            leases.renew(idle=0)
            leases.end_dead_workers()
            leases.record_agents()
            for name in settings.pooled(leases.pool):
                if settings.agents[name].budget.is_set:
                    leases.store.run(AgentCall(agent=name, verb="fund"))
            WORKER.agent_lock = lock
            return
        except BrokerUnavailable as error:
            logger.warning("the pool %s cannot be joined: %s", leases.pool, error)
        if lock is not None:
            lock.release()
        time.sleep(LEASE_RETRY_DELAY_S)


def _renew(leases: PoolLeases) -> bool:
    idle = max(0, leases.processes - len(tuple(reserved_requests)))
    try:
        if lost := leases.renew(idle):
            _kill_lost(leases, lost)
        return True
    except BrokerUnavailable as error:
        logger.warning("the leases of the pool %s were not renewed: %s", leases.pool, error)
        return leases.shared.left_s() > 0


def _kill_lost(leases: PoolLeases, lost: list[RunningTurn]) -> None:
    """Kill the children of turns that another attempt has."""
    # One that has just ended had its lease for as long as it ran.
    time.sleep(ENDED_S)
    running = leases.shared.turns().values()
    for turn in lost:
        if turn in running:
            logger.warning("the turn of %s is another worker's: it is killed", turn.dispatch_id)
            kill_child(turn.pid)


def _keep_renewing(leases: PoolLeases) -> None:
    while True:
        _await_renewal(leases)
        _end_dead(leases)
        if not _renew(leases):
            _exit_lost(leases)
        notify_breaker(leases.store, leases.shared)


def _await_renewal(leases: PoolLeases) -> None:
    """Wait until the leases are to be renewed, or there is anything to look after."""
    while True:
        renewed_s = leases.ttl_s * (1 - SAFETY) - leases.shared.left_s()
        wait_s = max(RENEW_RETRY_DELAY_S, leases.ttl_s / 3 - renewed_s)
        wanted = WORKER.work_wanted.wait(min(wait_s, WORKERS_POLL_INTERVAL_S))
        WORKER.work_wanted.clear()
        try:
            # What a dead one had popped, and its turns, are this one's to wake for.
            wanted = leases.end_dead_workers() or wanted
        except BrokerUnavailable as error:
            logger.warning("workers of %s are looked after later: %s", leases.pool, error)
        if wanted or wait_s <= WORKERS_POLL_INTERVAL_S:
            return


def _exit_lost(leases: PoolLeases) -> None:
    """End this process and its turns, writing nothing: other workers may run them now."""
    logger.critical("the leases of the pool %s are lost: this worker stops", leases.pool)
    kill_turns()
    kill_leftovers()
    os._exit(LEASE_LOST_EXIT)


def _end_dead(leases: PoolLeases) -> None:
    """End the turns whose children have died, and all that their tools started."""
    # Whoever kills a child looks for dead ones again.
    if _KILLING.acquire(blocking=False):
        try:
            _end_lost(leases)
        finally:
            _KILLING.release()


def _end_lost(leases: PoolLeases) -> None:
    for slot, turn in leases.shared.turns().items():
        if not (leases.shared.has_left(slot, turn.pid) or has_ended(turn.pid)):
            continue
        kill_child(turn.pid)
        try:
            if (state := leases.end(turn.dispatch_id, turn.lease, "lost")) in (
                State.QUEUED,
                State.DEAD,
            ):
                WORKER.killed.append((turn, state, "worker_lost: its process died"))
        except BrokerUnavailable as error:
            logger.warning("the turn of %s is looked after later: %s", turn.dispatch_id, error)
            return
        if leases.shared.turns().get(slot) == turn:
            leases.shared.end(slot)


def _keep_hard_limits(leases: PoolLeases) -> None:
    """Kill the children of turns that are past their hard limit, and record their outcome."""
    while True:
        turns, now = leases.shared.turns(), boottime()
        for slot, turn in turns.items():
            if now >= turn.hard_until:
                _end_past_limit(turn)
                leases.shared.end(slot)
        left_s = (one.hard_until - now for one in turns.values() if one.hard_until > now)
        soonest = min(left_s, default=LIMIT_POLL_INTERVAL_S)
        time.sleep(max(0.01, min(LIMIT_POLL_INTERVAL_S, soonest)))


def _end_past_limit(turn: RunningTurn) -> None:
    limit_s = runtime.current().settings.hard_limit_s(turn.agent)
    logger.warning("the turn of %s is past its hard limit: its child is killed", turn.dispatch_id)
    with _KILLING:
        kill_child(turn.pid)
        _commit_past_limit(turn, limit_s)
    WORKER.work_wanted.set()


def _commit_past_limit(turn: RunningTurn, limit_s: float) -> None:
    try:
        right = LeaseToken(
            agent=turn.agent, fence=turn.fence, lease=turn.lease, holder="", epoch=""
        )
        ending = Ending(failure=Failure.past_hard_limit(limit_s))
        state = runtime.current().ledger.commit_active(
            right, ending, turn.dispatch_id, turn.attempt
        )
        if state and ending.failure:
            reason = f"{ending.failure.stage}: {ending.failure.reason}"
            WORKER.killed.append((turn, state, reason))
    except BrokerUnavailable as error:
        # Then it counts as a lost worker.
        logger.warning("the hard limit of %s could not be recorded: %s", turn.dispatch_id, error)


def _obey_commands(leases: PoolLeases) -> None:
    for command in follow_commands(leases.worker):
        for turn in leases.shared.turns().values():
            if turn.dispatch_id == command.dispatch_id:
                logger.warning("the turn of %s is cancelled: its child is killed", turn.dispatch_id)
                kill_child(turn.pid)
                WORKER.work_wanted.set()


def release_turns(leases: PoolLeases, drain_s: float) -> None:
    """Let the turns of a stopping worker go on for `drain_s`; then kill them and hand them back."""
    time.sleep(drain_s)
    # For good: nobody takes the dead children for lost ones, and the worker does not leave before.
    _KILLING.acquire()
    turns = leases.shared.turns().values()
    logger.warning("%d turns of %s did not end in %g s", len(turns), leases.pool, drain_s)
    kill_turns()
    for turn in turns:
        kill_child(turn.pid)
    kill_leftovers()
    try:
        for turn in turns:
            leases.end(turn.dispatch_id, turn.lease, "stopped")
    except BrokerUnavailable as error:
        logger.warning("turns of the pool %s are lost with this worker: %s", leases.pool, error)
    _leave(leases)
    os._exit(0)


def _leave(leases: PoolLeases) -> None:
    try:
        leases.leave()
    except BrokerUnavailable as error:
        logger.warning("the pool %s notices later that this worker ended: %s", leases.pool, error)
