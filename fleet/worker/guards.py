"""The guards of every worker's leases, whether it serves one agent or a pool."""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from celery.worker.state import active_requests

from fleet import runtime
from fleet.errors import BrokerUnavailable, StoreLost
from fleet.ledger import store_life
from fleet.store import Store, keys, open_store
from fleet.store.address import store_url
from fleet.store.connection import reachable
from fleet.store.probe import probe
from fleet.system.process_group import kill_child
from fleet.system.process_tags import ProcessTag, kill_tagged
from fleet.worker.state import SharedLeaseState

logger = logging.getLogger(__name__)

#: sysexits' EX_SOFTWARE; the supervisor starts a new worker.
LEASE_LOST_EXIT = 70
#: How late, at most, a process notices that its lease has run out.
LEASE_POLL_INTERVAL_S = 0.02
#: Before a lease is asked for again that the store did not answer for.
LEASE_RETRY_DELAY_S = 0.5
#: Between renewals that fail: a broker that comes back in time must not cost a turn.
RENEW_RETRY_DELAY_S = 0.25


def lease_store() -> Store:
    """A store of the leases' own, with short timeouts: a renewal that hangs has failed."""
    settings = runtime.current().settings
    return open_store(
        store_url(settings),
        bus_max_length=settings.bus.max_length,
        wakes=runtime.current().wakes,
        # Twice this, for the one retry, after a third of the time to live, is still in time.
        socket_timeout_s=settings.lease_ttl_s / 6,
    )


def start_thread(target: Callable[..., None], *args: Any) -> None:
    """Run a function beside the rest of this process, which does not wait for it."""
    threading.Thread(target=target, args=args, daemon=True).start()


def die_with_lease(shared: SharedLeaseState) -> None:
    """End this process in time, even while its worker or the broker is stopped or hangs."""
    while True:
        exit_if_lost(shared)
        time.sleep(max(LEASE_POLL_INTERVAL_S, min(1.0, shared.left_s() / 2)))


def exit_if_lost(shared: SharedLeaseState) -> None:
    """End this process at once when its lease has run out."""
    if shared.lost():
        os._exit(LEASE_LOST_EXIT)


def kill_turns() -> None:
    """Kill all turns with all that their tools started; return when they are dead."""
    for request in tuple(active_requests):
        if request.worker_pid:
            kill_child(request.worker_pid)


def kill_leftovers() -> None:
    """Kill what tools have started, in whatever session it runs: it ends with its worker."""
    kill_tagged(ProcessTag.WORKER, os.getpid())


def look_at_store(store: Store) -> None:
    """Notice a store that went back before anything of it runs."""
    try:
        if lost := store_life.look(store, runtime.current().settings):
            logger.critical("%s", StoreLost.of(lost))
    except BrokerUnavailable as error:
        logger.warning("the store is not compared with what is known of it: %s", error)


def close_breaker(store: Store) -> None:
    """Close the breaker when the broker takes a write: until then turns may run from the spool."""
    breaker = runtime.current().breaker
    if breaker.closed:
        return
    try:
        with reachable():
            lease_ms = int(runtime.current().settings.lease_ttl_s * 1000)
            store.client.set(keys.READY, "1", px=lease_ms)
        probe(breaker, lambda: store, writable=True)
    except BrokerUnavailable as error:
        logger.warning("the broker takes no write: %s", error)


def notify_breaker(store: Store, shared: SharedLeaseState) -> None:
    """Close the breaker: a renewal that succeeded proves that the broker takes writes."""
    breaker = runtime.current().breaker
    if not breaker.closed and shared.left_s() > runtime.current().settings.lease_ttl_s / 2:
        probe(breaker, lambda: store, writable=True)
