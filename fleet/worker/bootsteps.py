"""Steps that turn a `celery worker` into an agent's worker: checks at start, then the lease.

    celery -A fleet worker -Q agent.archie -c 1 -n archie@%h

`fleet.worker.pool_step` has those of a pool's worker. Everything hangs on Celery's extension
points: bootsteps, signals, and the Request classes of `fleet.worker.celery_requests`. A worker of
the shared queues stays as it is.
"""

import gc
import logging
import os
import signal
import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import billiard
from celery import bootsteps, signals
from celery.worker.state import maybe_shutdown, reserved_requests

from fleet import runtime
from fleet.config.hidden_modules import check_folder
from fleet.errors import BrokerUnavailable, FleetError
from fleet.formats.terminal_text import sanitize
from fleet.ledger import bus, store_life
from fleet.store import keys
from fleet.store.calls import AgentCall
from fleet.store.wakeup import DISPATCH_TASK
from fleet.system.agent_lock import TurnLock
from fleet.system.data_dir import private
from fleet.system.lifeline import watch_lifeline
from fleet.system.parent_death import set_parent_death_signal
from fleet.system.process_tags import ProcessTag, drop_owner, tag_environment
from fleet.turn.budget import DAY_S, used_up
from fleet.worker import shutdown_grace
from fleet.worker.child_processes import allow_processes
from fleet.worker.commands import follow_commands
from fleet.worker.guards import (
    LEASE_LOST_EXIT,
    LEASE_RETRY_DELAY_S,
    RENEW_RETRY_DELAY_S,
    close_breaker,
    die_with_lease,
    exit_if_lost,
    kill_leftovers,
    kill_turns,
    lease_store,
    look_at_store,
    notify_breaker,
    start_thread,
)
from fleet.worker.lease import SAFETY, Lease
from fleet.worker.pool_step import open_leases, release_turns
from fleet.worker.remote_control import refuse_growth
from fleet.worker.state import WORKER

logger = logging.getLogger(__name__)


class StartChecks(bootsteps.Step):
    """Refuses, in one sentence, a worker that cannot keep the guarantees."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        try:
            private(runtime.current().settings.data_dir)
            check_folder(runtime.current().settings)
        except FleetError as error:
            raise SystemExit(f"fleet: {error}") from error
        served = served_by(parent.app)
        if served is None:
            return
        pool = parent.pool_cls.__module__.rpartition(".")[2]
        if pool != "prefork":
            raise SystemExit(
                f"fleet: the {pool} pool cannot enforce time limits; start it with -P prefork."
            )
        _check_processes(served, parent.concurrency)
        refuse_growth()
        WORKER.prepare(parent.concurrency)
        tag_environment(ProcessTag.WORKER)
        # One list for a queue: the ledger decides the order, not a wake-up's priority. The shared
        # queues keep all of kombu's, or an event sent with a priority would wait for ever.
        parent.app.conf.broker_transport_options["priority_steps"] = [0]
        task, settings = parent.app.tasks[DISPATCH_TASK], runtime.current().settings
        # Before the fork: a soft limit in mid-import would leave a half-imported module.
        task.preload([settings.agents[name] for name in served.agents])
        if any(settings.uses_tool_servers(name) for name in served.agents):
            import_module("fleet.tools.mcp.server")
        # A child whose collector walks these objects would copy their pages.
        gc.freeze()
        if served.pool is None:
            task.soft_time_limit = settings.timeout_s(served.agents[0])
            task.time_limit = settings.hard_limit_s(served.agents[0])
        else:
            # Each turn has limits of its own, which its child and its worker keep.
            task.soft_time_limit = task.time_limit = None
            WORKER.pool = open_leases(served.pool)


@dataclass(frozen=True, slots=True)
class Served:
    """The agents whose turns a worker runs; `pool` is None where it is one agent's own worker."""

    agents: tuple[str, ...]
    pool: str | None = None


def served_by(app: Any) -> Served | None:
    """The agent or the pool whose queue this worker consumes; None for the shared queues.

    Raises SystemExit for several of them, and for one that is not configured.
    """
    queues, settings = list(app.amqp.queues.consume_from), runtime.current().settings
    found = [name for name in queues if name.startswith(("agent.", "pool."))]
    if not found:
        return None
    if len(queues) > 1:
        raise SystemExit(
            "fleet: a worker serves one agent or one pool and nothing else; start it with "
            "-Q agent.NAME or -Q pool.NAME."
        )
    kind, _, name = found[0].partition(".")
    if kind == "pool":
        if not settings.pooled(name):
            raise SystemExit(f"fleet: {name!r} is no pool of this fleet that has an agent.")
        return Served(settings.pooled(name), name)
    agent = settings.agents.get(name)
    if agent is None:
        raise SystemExit(f"fleet: {name!r} is not an agent of this fleet; see `fleet agents`.")
    if agent.pool is not None:
        raise SystemExit(
            f"fleet: {name} is in the pool {agent.pool}; start that with -Q pool.{agent.pool}."
        )
    return Served((name,))


def _check_processes(served: Served, processes: int) -> None:
    if served.pool is None:
        if processes != 1:
            raise SystemExit(
                "fleet: an agent runs one dispatch at a time; start the worker with -c 1."
            )
        return
    wanted = runtime.current().settings.pools[served.pool].processes
    if processes != wanted:
        raise SystemExit(
            f"fleet: pools.{served.pool}.processes is {wanted}; start the worker with -c {wanted}."
        )


class LeaseStep(bootsteps.StartStopStep):
    """Acquires the agent's lease before the worker consumes, and checks it after each reconnect."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        served = served_by(consumer.app)
        self.agent = served.agents[0] if served and served.pool is None else None
        self.enabled = self.agent is not None

    def start(self, consumer: Any) -> None:
        """Block until this worker has the lease; a second worker of the agent stands by here."""
        if WORKER.lease is not None:
            if not _renew(WORKER.lease, consumer):
                _exit_lease_lost(WORKER.lease)
            return
        WORKER.lease = lease = _await_lease(str(self.agent))
        logger.info("holding the lease of %s under token %d", lease.agent, lease.fence)
        start_thread(_keep_renewing, lease, consumer)
        start_thread(die_with_lease, lease.shared)
        start_thread(_obey_commands, lease)
        notify_breaker(lease.store, lease.shared)
        _check_budget(lease, consumer.app.tasks[DISPATCH_TASK])
        start_thread(_check_models, lease.agent, consumer.app.tasks[DISPATCH_TASK])

    def shutdown(self, consumer: Any) -> None:
        """Release the lease, and an unfinished turn with it; called after the pool has ended."""
        if self.enabled:
            kill_leftovers()
        if WORKER.lease is not None:
            _release(WORKER.lease)


def _check_budget(lease: Lease, task: Any) -> None:
    """Let go on what the agent's budget stopped, where it is a larger one now; warn of its gaps."""
    agent = runtime.current().settings.agents[lease.agent]
    try:
        if used_up(lease.store, lease.agent, agent.budget) is None:
            lease.store.run(AgentCall(agent=lease.agent, verb="fund"))
        for fault in task.unpriced(lease.agent, agent):
            logger.warning(fault)
            bus.alert(lease.store, "unpriced_model", fault, once_in_s=DAY_S)
    except BrokerUnavailable as error:
        logger.warning("the budget of %s is looked up at its next call: %s", lease.agent, error)


def _check_models(name: str, task: Any) -> None:
    """Warn of models that cannot be called, as `fleet doctor` does; a worker runs without this."""
    try:
        for fault in task.uncallable(name, runtime.current().settings.agents[name]):
            logger.warning(fault)
    except Exception:
        logger.warning("the models of %s cannot be checked", name, exc_info=True)


def _await_lease(agent: str) -> Lease:
    """The agent's lease, once it is acquired; Celery may shut this worker down before."""
    lease, lock = _open_lease(agent), _turn_lock(agent)
    look_at_store(lease.store)
    if _try_acquire(lease, lock):
        return lease
    logger.info("standing by: another process runs the turns of %s", agent)
    while True:
        maybe_shutdown()
        lease.await_release()
        if _try_acquire(lease, lock):
            return lease


def _open_lease(agent: str) -> Lease:
    settings = runtime.current().settings
    publisher = runtime.current().wakeup_publisher
    return Lease(lease_store(), agent, settings.lease_ttl_s, WORKER.shared, publisher)


def _turn_lock(agent: str) -> TurnLock | None:
    """The agent's lock of this machine, needed only where turns also run without the store."""
    settings = runtime.current().settings
    return TurnLock(settings.data_dir, agent) if settings.runs_offline else None


def _try_acquire(lease: Lease, lock: TurnLock | None) -> bool:
    """Acquire the lock of this machine, and then the lease; both or neither."""
    # While the broker is away the lock is theirs who run spooled events.
    if lock is not None and not (runtime.current().breaker.closed and lock.acquire(shared=True)):
        close_breaker(lease.store)
        time.sleep(RENEW_RETRY_DELAY_S)
        return False
    wait_s = 0.0
    try:
        if lease.acquire():
            WORKER.agent_lock = lock
            return True
    except BrokerUnavailable as error:
        logger.warning("the lease of %s cannot be acquired: %s", lease.agent, error)
        wait_s = LEASE_RETRY_DELAY_S
    if lock is not None:
        lock.release()
    time.sleep(wait_s)
    return False


def _renew(lease: Lease, consumer: Any) -> bool:
    try:
        consuming = _consumes(consumer, lease.agent)
        return lease.renew(busy=bool(reserved_requests), consuming=consuming)
    except BrokerUnavailable as error:
        logger.warning("the lease of %s was not renewed: %s", lease.agent, error)
        return lease.shared.left_s() > 0


def _consumes(consumer: Any, agent: str) -> bool:
    """True while kombu consumes the queue for a child: remote control may have taken either."""
    # A pool that has stopped has none inside, and `num_processes` fails.
    tasks, pool = consumer.task_consumer, consumer.pool._pool
    if tasks is None or pool is None or not pool._processes:
        return False
    return bool(tasks.consuming_from(keys.queue(agent)))


def _keep_renewing(lease: Lease, consumer: Any) -> None:
    """Renew in a thread, because Celery's main loop stands still while it reconnects."""
    while lease.fence:
        renewed_s = lease.ttl_s * (1 - SAFETY) - lease.shared.left_s()
        # A worker that does not consume yet is renewed sooner, to report that it does.
        wait_s = lease.ttl_s / 3 - renewed_s if _consumes(consumer, lease.agent) else 0.0
        WORKER.work_wanted.wait(max(RENEW_RETRY_DELAY_S, wait_s))
        WORKER.work_wanted.clear()
        if not _renew(lease, consumer):
            _exit_lease_lost(lease)
        notify_breaker(lease.store, lease.shared)


def _exit_lease_lost(lease: Lease) -> None:
    """End this process and its turn, writing nothing: another worker may run the agent now."""
    logger.critical("the lease of %s is lost: this worker stops", lease.agent)
    kill_turns()
    kill_leftovers()
    try:
        if lease.data_is_gone():
            fault = "the store was emptied, or an older backup put back"
            logger.critical("%s: what was accepted may be lost", fault)
            # The store says so itself, unless this machine has no memory of it.
            if not store_life.is_known_lost(lease.store, runtime.current().settings, lease.epoch):
                bus.alert(lease.store, "data_lost", f"{fault}, under a running fleet")
    except FleetError as error:
        logger.warning("it is not known whether the store went back: %s", error)
    finally:
        os._exit(LEASE_LOST_EXIT)


def _obey_commands(lease: Lease) -> None:
    """Obey commands to this worker; the only one so far stops a turn."""
    for command in follow_commands(lease.agent):
        if WORKER.shared.running == command.dispatch_id:
            logger.warning("the turn of %s is cancelled: its child is killed", command.dispatch_id)
            kill_turns()


def _release(lease: Lease) -> None:
    try:
        lease.release()
    except BrokerUnavailable as error:
        logger.warning("the lease of %s is not released and will expire: %s", lease.agent, error)


@signals.celeryd_init.connect
def _on_start(**_: Any) -> None:
    watch_lifeline()
    if sentence := shutdown_grace.warning(runtime.current().settings):
        logger.warning(sentence)


@signals.task_unknown.connect
def _on_unknown_task(name: str = "", **_: Any) -> None:
    # Celery says the rest, and the name only beside the whole message.
    logger.error("%r: no task of this fleet; the message is deleted", sanitize(name)[:100])


@signals.worker_shutting_down.connect
def _on_shutdown(how: str = "Warm", **_: Any) -> None:
    """Bound how long a stopping worker, which consumes no more, may finish its turn.

    A cold stop (SIGQUIT, or a second Ctrl-C) does not wait for it at all.
    """
    drain_s = 0.0 if how == "Cold" else runtime.current().settings.drain_s
    if WORKER.lease is not None:
        start_thread(_release_after, WORKER.lease, drain_s)
    elif WORKER.pool is not None:
        WORKER.shared.leaving = True
        start_thread(release_turns, WORKER.pool, drain_s)


def _release_after(lease: Lease, drain_s: float) -> None:
    time.sleep(drain_s)
    logger.warning("the turn of %s did not end in %g s and is released", lease.agent, drain_s)
    # First dead, then released: otherwise another worker could run the turn beside this one.
    kill_turns()
    kill_leftovers()
    _release(lease)
    os._exit(0)


@signals.worker_process_init.connect
def _on_child_start(**_: Any) -> None:
    """Tie the child that runs turns to its worker, and to its worker's lease."""
    set_parent_death_signal()
    allow_processes()
    # A group of its own, so that what its tools started can be killed with it.
    os.setpgid(0, 0)
    tag_environment(ProcessTag.CHILD)
    # The pool numbers its children from 0, and gives a dead one's number to its replacement.
    WORKER.enter_child(int(getattr(billiard.current_process(), "index", 0)))
    if WORKER.pool is not None:
        drop_owner()
    if WORKER.lease is not None:
        WORKER.lease.forget_beacon()
    # A stopped process that is continued runs this before the rest of its main thread.
    signal.signal(signal.SIGCONT, lambda *_: exit_if_lost(WORKER.shared))
    start_thread(die_with_lease, WORKER.shared)
