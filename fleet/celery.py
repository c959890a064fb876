"""The Celery app, for `celery -A fleet ...`. Each setting has its reason beside it."""

import sys
from datetime import UTC, datetime
from typing import Any

from celery import Celery, signals
from celery.app.log import Logging
from celery.schedules import schedule

from fleet.config.settings import Settings, load
from fleet.config.tls import tls_options
from fleet.errors import FleetError
from fleet.ledger.maintenance import HEALTH_PERIOD_S, RECLAIM_PERIOD_S, SWEEP_PERIOD_S
from fleet.quiet_log import guard_log
from fleet.store.address import broker_url, results_url, sentinel_options, wakeups_in_store
from fleet.store.celery_app import celery_app, keep_command_line_out
from fleet.store.queues import SHARED_QUEUES, shared_queue, wakeup_queue
from fleet.store.wakeup import DELIVER_TASK, INTAKE_TASK
from fleet.system.clock import boottime

#: Turn a hung broker into an error.
HUNG_S, CONNECT_S = 10.0, 5.0
#: A tick is stale after this, and at least two of its periods.
STALE_S = 30.0
_ANSWERS = {
    "redis": "fleet.worker.celery_results:AnswerBackend",
    "senti": "fleet.worker.celery_results:SentinelAnswerBackend",
}


@signals.celeryd_init.connect
def _guard_worker(**_: Any) -> None:
    # Celery warns of the superuser before it sets up its logging.
    guard_log()


class GuardedLogging(Logging):
    """Celery's logging. Beat makes it before it prints anything; a producer never does."""

    def __init__(self, app: Celery) -> None:
        guard_log()
        super().__init__(app)


def create_app(settings: Settings) -> Celery:
    """A Celery app for one fleet. Raises BrokerUnavailable when its embedded broker is down."""
    app = celery_app(
        "fleet", broker=broker_url(settings), log=GuardedLogging, **_configuration(settings)
    )
    app.steps["worker"].add("fleet.worker.bootsteps:StartChecks")
    app.steps["worker"].add("fleet.worker.no_delayed_delivery:NoDelayedDelivery")
    app.steps["worker"].add("fleet.worker.reaper:PoolReaper")
    app.steps["worker"].add("fleet.worker.reconnect:FirstConnect")
    app.steps["worker"].add("fleet.ops.alerts.step:AlertStep")
    app.steps["consumer"].add("fleet.worker.bootsteps:LeaseStep")
    app.steps["consumer"].add("fleet.worker.pool_step:PoolStep")
    app.steps["consumer"].add("fleet.worker.broken_messages:RefuseBroken")
    app.steps["consumer"].add("fleet.worker.task_events:BatchedEvents")
    app.steps["consumer"].add("fleet.worker.idle_connections:IdleConnections")
    app.steps["consumer"].add("fleet.worker.reconnect:Reconnect")
    app.steps["consumer"].add("fleet.worker.remote_control:UndoRemoteControl")
    return app


def _configuration(settings: Settings) -> dict[str, Any]:
    return {
        # By name: `fleet` never imports `tasks`.
        "imports": ["tasks.deliver", "tasks.dispatch", "tasks.intake", "tasks.maintenance"],
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_accept_content": ["json"],
        "task_queues": [
            *(wakeup_queue(settings, name) for name in settings.workers),
            *(shared_queue(name) for name in SHARED_QUEUES),
        ],
        "task_default_queue": "intake",
        "task_routes": {
            INTAKE_TASK: {"queue": "intake"},
            DELIVER_TASK: {"queue": "delivery"},
            "fleet.reclaim": {"queue": "maintenance"},
            "fleet.health": {"queue": "maintenance"},
            "fleet.sweep": {"queue": "maintenance"},
        },
        # A dispatch is acknowledged once its outcome is in the ledger.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # Outcomes are in the ledger. Only intake answers a Celery producer, for an hour.
        "task_ignore_result": True,
        **_results(settings),
        **_connections(settings),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Otherwise a full or read-only broker stops the worker for good (celery/celery#7946).
        "broker_channel_error_retry": True,
        **_worker(settings),
        "beat_schedule": {
            "reclaim": _periodic("fleet.reclaim", RECLAIM_PERIOD_S),
            "health": _periodic("fleet.health", HEALTH_PERIOD_S),
            "sweep": _periodic("fleet.sweep", SWEEP_PERIOD_S),
        },
        # In memory: each job is due by its period alone, and a full disk cannot stop beat.
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": 1,
    }


def _connections(settings: Settings) -> dict[str, Any]:
    # Flower does not read the URL's words, and Celery's backend misreads some.
    broker, store = settings.broker_url or "", settings.store_url or settings.broker_url or ""
    return {
        "broker_transport_options": _transport(settings),
        "broker_use_ssl": tls_options(broker) or False,
        "redis_backend_use_ssl": tls_options(store),
    }


def _results(settings: Settings) -> dict[str, Any]:
    backend = results_url(settings)
    return {
        # A socket is `redis+socket://` to Celery, and `socket://` to its backend.
        "result_backend": f"{_ANSWERS[backend[:5]]}+{backend.removeprefix('redis+')}"
        if backend[:5] in _ANSWERS
        else None,
        # As in `_transport`: Celery would wait for 120 s.
        "redis_socket_timeout": HUNG_S,
        "redis_socket_connect_timeout": CONNECT_S,
        # Then the message comes again; Celery would try 20 times.
        "result_backend_transport_options": {
            "retry_policy": {"max_retries": 3},
            **sentinel_options(settings.store_url or settings.broker_url),
        },
        "result_expires": 3600,
    }


def _transport(settings: Settings) -> dict[str, Any]:
    if not wakeups_in_store(settings):
        # Each wait for an answer, in publishing too. A consumer that waits for work only polls.
        return {"confirm_publish": True, "read_timeout": HUNG_S, "write_timeout": HUNG_S}
    return {
        "visibility_timeout": settings.visibility_timeout_s,
        "socket_timeout": HUNG_S,
        "socket_connect_timeout": CONNECT_S,
        "socket_keepalive": True,
        **sentinel_options(settings.broker_url),
    }


def _worker(settings: Settings) -> dict[str, Any]:
    return {
        "worker_prefetch_multiplier": 1,
        # A worker pops a wake-up only when it is free (Redis only).
        "worker_disable_prefetch": wakeups_in_store(settings),
        # A turn outlives a dropped connection; its second wake-up finds nothing to do.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A limit that somebody sets by remote control would hold dispatches back.
        "worker_disable_rate_limits": True,
        # Importing LiteLLM takes seconds; at the default of 4 s the pool kills every child.
        "worker_proc_alive_timeout": 60,
        # An agent's output is a file as anywhere else: it has a buffer and a number.
        "worker_redirect_stdouts": False,
        # For Flower. Messages hold ids only, and so do the events.
        "worker_send_task_events": True,
        "task_track_started": True,
    }


def _periodic(task: str, period_s: float) -> dict[str, Any]:
    # The next tick does the work of a stale one. But each may be late while events keep the worker
    # busy, and each must not be too late then. Beat does not import the tasks, so their own
    # `ignore_result` is unknown to it.
    options = {"expires": max(2 * period_s, STALE_S), "ignore_result": True}
    return {"task": task, "schedule": schedule(period_s, nowfun=_now), "options": options}


def _now() -> datetime:
    """The time by a clock that nobody sets; beat only compares it."""
    return datetime.fromtimestamp(boottime(), UTC)


try:
    keep_command_line_out()
    app = create_app(load())
except FleetError as error:
    sys.stderr.write(f"fleet: {error}\n")
    raise SystemExit(error.exit_code) from error
