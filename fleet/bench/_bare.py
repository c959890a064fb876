"""Bare Celery as the peer of the fleet, with the settings that its documentation recommends.

    celery -A fleet.bench._bare worker -Q bare.a1 -c 1 -P prefork --without-gossip ...

It runs the same no-op through Celery's message alone: no ledger, no bus, no lease.
"""

import os
from typing import Any

from celery import Celery, signals

from fleet.bench import _turns
from fleet.system.lifeline import watch_lifeline

#: Variables set by the benchmark for this process.
URL, TIMEOUT_S, LITELLM = "BENCH_BROKER_URL", "BENCH_VISIBILITY_TIMEOUT_S", "BENCH_LITELLM"


def configured(url: str, visibility_timeout_s: float) -> Celery:
    """An app that publishes to, or consumes from, `url`."""
    app = Celery("bare", broker=url, set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_transport_options={
            "visibility_timeout": visibility_timeout_s,
            # Checked every second, the shortest interval there is.
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "priority_steps": [0],
            "socket_keepalive": True,
        },
    )
    return app


@signals.celeryd_init.connect
def _follow_the_benchmark(**_: Any) -> None:
    watch_lifeline()


@signals.worker_ready.connect
def _ready(sender: Any, **_: Any) -> None:
    # A line like a turn's, with a name instead of a number.
    _turns.record(f"ready:{sender.hostname.partition('@')[0]}")


if URL in os.environ:
    app = configured(os.environ[URL], float(os.environ[TIMEOUT_S]))
    app.task(name="noop")(_turns.record)
    app.task(name="hold")(_turns.hold_text)
    app.task(name="stay")(_turns.stay)
    if os.environ.get(LITELLM):
        __import__("tasks.model.completion", fromlist=["load"]).load()
