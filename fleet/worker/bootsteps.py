"""What turns a `celery worker` into an agent's worker: refusals at start, then the lease.

    celery -A fleet worker -Q agent.archie -c 1 -n archie@%h

Everything hangs on Celery's extension points: bootsteps, signals, and the Request classes of
`fleet.worker.celery_requests`. A worker of the shared queues passes through untouched.
"""

import gc
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from importlib import import_module
from typing import Any

from celery import bootsteps, signals
from celery.worker.state import active_requests, maybe_shutdown, reserved_requests

from fleet import runtime
from fleet.errors import BrokerUnavailable
from fleet.ledger import bus
from fleet.store import keys, open_store
from fleet.store.address import rings_in_store, store_url
from fleet.store.probe import probe
from fleet.store.wakeup import DISPATCH_TASK
from fleet.system import process_identity
from fleet.system.agent_lock import TurnLock
from fleet.system.lifeline import watch_lifeline
from fleet.system.parent_death import set_parent_death_signal
from fleet.system.process_tags import ProcessTag, kill_tagged, tag_environment
from fleet.worker import shutdown_grace
from fleet.worker.commands import follow_commands
from fleet.worker.lease import POLL_INTERVAL_S, SAFETY, Lease, SharedLeaseState
from fleet.worker.state import WORKER

logger = logging.getLogger(__name__)

#: sysexits' EX_SOFTWARE; the supervisor starts a new worker, which waits for the lease.
LEASE_LOST_EXIT = 70
#: How late, at most, a process notices that its lease has run out.
LEASE_POLL_INTERVAL_S = 0.02
#: Between renewals that fail: a broker that comes back in time must not cost a turn.
RETRY_S = 0.25
#: After SIGKILL only the kernel's own work is left.
KILL_TIMEOUT_S = 2.0


class Refusals(bootsteps.Step):
    """Refuses, in one sentence, a worker that could not keep the guarantees."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        agent = agent_of(parent.app)
        if agent is None:
            return
        pool = parent.pool_cls.__module__.rpartition(".")[2]
        if pool != "prefork":
            raise SystemExit(
                f"fleet: the {pool} pool cannot enforce time limits; start it with -P prefork."
            )
        if parent.concurrency != 1:
            raise SystemExit(
                "fleet: an agent runs one dispatch at a time; start the worker with -c 1."
            )
        WORKER.prepare()
        tag_environment(ProcessTag.WORKER)
        # One list a queue: a doorbell's priority is the ledger's business. The shared queues keep
        # all of kombu's, or an event that a producer sent with a priority would wait for ever.
        parent.app.conf.broker_transport_options["priority_steps"] = [0]
        settings = runtime.current().settings
        if settings.agents[agent].runner == "llm":
            # Before the fork: a soft limit in mid-import would leave a half-imported module.
            parent.app.tasks[DISPATCH_TASK].preload()
        if settings.uses_tool_servers(agent):
            import_module("fleet.tools.mcp.server")
        # A child that looks through all of it for garbage would copy it.
        gc.freeze()
        task = parent.app.tasks[DISPATCH_TASK]
        task.soft_time_limit = settings.timeout_s(agent)
        task.time_limit = settings.hard_limit_s(agent)


def agent_of(app: Any) -> str | None:
    """The agent whose queue this worker consumes, None for the shared queues.

    Raises SystemExit when it was given several agents, or none of the fleet's.
    """
    queues = list(app.amqp.queues.consume_from)
    agents = [name.removeprefix("agent.") for name in queues if name.startswith("agent.")]
    if not agents:
        return None
    if len(queues) > 1:
        raise SystemExit(
            "fleet: a worker serves one agent and nothing else; start it with -Q agent.NAME."
        )
    if agents[0] not in runtime.current().settings.agents:
        raise SystemExit(f"fleet: {agents[0]!r} is no agent of this fleet; see `fleet agents`.")
    return str(agents[0])


class LeaseStep(bootsteps.StartStopStep):
    """Wins the agent's lease before the worker consumes, and again after each reconnect."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self.agent = agent_of(consumer.app)
        self.enabled = self.agent is not None

    def start(self, consumer: Any) -> None:
        """Block until the lease is ours; a second worker of the same agent stands by here."""
        if WORKER.lease is not None:
            if not _still_ours(WORKER.lease, consumer):
                _stop_at_once(WORKER.lease)
            return
        lease = _open_lease(str(self.agent))
        here = _turn_lock(str(self.agent))
        waited = False
        while not _try_take(lease, here):
            maybe_shutdown()
            if not waited:
                logger.info("standing by: another process runs the turns of %s", self.agent)
                waited = True
            lease.await_chance()
        WORKER.lease = lease
        logger.info("holding the lease of %s under token %d", self.agent, lease.fence)
        threading.Thread(target=_renew_for_ever, args=(lease, consumer), daemon=True).start()
        threading.Thread(target=_die_with_lease, args=(lease.page,), daemon=True).start()
        threading.Thread(target=_obey_for_ever, args=(lease,), daemon=True).start()
        _tell_breaker(lease)

    def shutdown(self, consumer: Any) -> None:
        """After the pool has ended: give the lease, and an unfinished turn, back."""
        if self.enabled:
            _leave_nothing()
        if WORKER.lease is not None:
            _release(WORKER.lease)


def _open_lease(agent: str) -> Lease:
    settings = runtime.current().settings
    # Its own short-tempered client: a renewal that hangs is a renewal that failed.
    store = open_store(
        store_url(settings),
        bus_max_length=settings.bus.max_length,
        rings=rings_in_store(settings),
        # Twice this, for the one retry, on top of the third between renewals, is still in time.
        socket_timeout_s=settings.lease_ttl_s / 6,
    )
    return Lease(
        store, agent, settings.lease_ttl_s, WORKER.shared, runtime.current().wakeup_publisher
    )


def _turn_lock(agent: str) -> TurnLock | None:
    """Needed only where turns also run without the store."""
    settings = runtime.current().settings
    return TurnLock(settings.data_dir, agent) if settings.runs_offline else None


def _try_take(lease: Lease, here: TurnLock | None) -> bool:
    """Take the lock of this machine, and then the lease; both or none."""
    if here is not None and not here.acquire(shared=True):
        time.sleep(POLL_INTERVAL_S)
        return False
    try:
        if lease.acquire():
            WORKER.agent_lock = here
            return True
    except BrokerUnavailable as error:
        logger.warning("cannot take the lease of %s: %s", lease.agent, error)
        time.sleep(0.5)
    if here is not None:
        here.release()
    return False


def _still_ours(lease: Lease, consumer: Any) -> bool:
    try:
        consuming = _consumes(consumer, lease.agent)
        return lease.renew(busy=bool(reserved_requests), consuming=consuming)
    except BrokerUnavailable as error:
        logger.warning("the lease of %s was not renewed: %s", lease.agent, error)
        return lease.page.left_s() > 0


def _consumes(consumer: Any, agent: str) -> bool:
    """Ask kombu, because remote control may have taken the queue away from the worker."""
    tasks = consumer.task_consumer
    return tasks is not None and bool(tasks.consuming_from(keys.queue(agent)))


def _renew_for_ever(lease: Lease, consumer: Any) -> None:
    """In a thread, because Celery's main loop stands still while it reconnects."""
    while lease.fence:
        renewed_s = lease.ttl_s * (1 - SAFETY) - lease.page.left_s()
        # Who does not consume yet says so as soon as it does.
        wait_s = lease.ttl_s / 3 - renewed_s if _consumes(consumer, lease.agent) else 0.0
        WORKER.work_wanted.wait(max(RETRY_S, wait_s))
        WORKER.work_wanted.clear()
        if not _still_ours(lease, consumer):
            _stop_at_once(lease)
        _tell_breaker(lease)


def _tell_breaker(lease: Lease) -> None:
    """A renewal that got through is a broker that takes writes: intake need not wait any longer."""
    breaker = runtime.current().breaker
    if not breaker.closed and lease.page.left_s() > lease.ttl_s / 2:
        probe(breaker, lambda: lease.store, heard=True)


def _stop_at_once(lease: Lease) -> None:
    """Another may run the agent now: this process and its turn end here, nothing is written."""
    logger.critical("the lease of %s is lost: this worker stops", lease.agent)
    _kill_turn()
    _leave_nothing()
    try:
        if lease.data_is_gone():
            logger.critical("the store was emptied: what was accepted before is lost")
            bus.alert(
                runtime.current().store, "data_lost", "the store was emptied under a running fleet"
            )
    except BrokerUnavailable as error:
        logger.warning("whether the store was emptied is not known: %s", error)
    finally:
        os._exit(LEASE_LOST_EXIT)


def _obey_for_ever(lease: Lease) -> None:
    """Orders to this worker come by a list of its own; the only one so far is to stop a turn."""
    for order in follow_commands(lease.agent):
        if WORKER.shared.running == order.dispatch_id:
            logger.warning("the turn of %s is cancelled: its child is killed", order.dispatch_id)
            _kill_turn()


def _kill_turn() -> None:
    """The turn ends now, with all that its tools started; return when it is dead."""
    for request in tuple(active_requests):
        child = request.worker_pid
        if child:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            process_identity.await_end(child, KILL_TIMEOUT_S)


def _leave_nothing() -> None:
    """What tools have started ends with their worker, in whatever session it hides."""
    kill_tagged(ProcessTag.WORKER, os.getpid())


def _release(lease: Lease) -> None:
    try:
        lease.release()
    except BrokerUnavailable as error:
        logger.warning("the lease of %s will run out by itself: %s", lease.agent, error)


@signals.celeryd_init.connect
def _follow_the_supervisor(**_: Any) -> None:
    watch_lifeline()
    if sentence := shutdown_grace.warning(runtime.current().settings):
        logger.warning(sentence)


@signals.worker_shutting_down.connect
def _drain(how: str = "Warm", **_: Any) -> None:
    """A stopping worker consumes no more; this bounds how long it may finish its turn.

    A cold stop (SIGQUIT, or a second Ctrl-C) does not wait for it at all.
    """
    if WORKER.lease is not None:
        patience = 0.0 if how == "Cold" else runtime.current().settings.drain_s
        threading.Thread(target=_hand_back, args=(WORKER.lease, patience), daemon=True).start()


def _hand_back(lease: Lease, patience_s: float) -> None:
    time.sleep(patience_s)
    logger.warning("the turn of %s did not end in %g s and is handed back", lease.agent, patience_s)
    # First dead, then handed back: else another worker could run it beside this one.
    _kill_turn()
    _leave_nothing()
    _release(lease)
    os._exit(0)


@signals.worker_process_init.connect
def _in_child(**_: Any) -> None:
    """The child that runs turns dies with its worker, and with its worker's lease."""
    set_parent_death_signal()
    # A group of its own, so that what its tools started can be killed with it.
    os.setpgid(0, 0)
    tag_environment(ProcessTag.CHILD)
    WORKER.shared.retire_child = False
    if WORKER.lease is not None:
        WORKER.lease.forget_beacon()
    # A stopped process that goes on runs this before anything else of its main thread.
    signal.signal(signal.SIGCONT, lambda *_: _end_if_lost(WORKER.shared))
    threading.Thread(target=_die_with_lease, args=(WORKER.shared,), daemon=True).start()


def _die_with_lease(page: SharedLeaseState) -> None:
    """Ends this process in time, though its worker, or its broker, is stopped or hangs."""
    while True:
        _end_if_lost(page)
        time.sleep(max(LEASE_POLL_INTERVAL_S, min(1.0, page.left_s() / 2)))


def _end_if_lost(page: SharedLeaseState) -> None:
    if page.lost():
        os._exit(LEASE_LOST_EXIT)
