"""The process `fleet upstream`: acquires its lock, takes events, reports outcomes, and releases it.

The lock only spares the gateway a crowd of clients. No event runs twice even without it: the intake
recognises an event by source and id.
"""

import asyncio
import logging
import signal
from contextlib import suppress

from fleet import runtime
from fleet.config.settings import Settings
from fleet.errors import BrokerUnavailable, Fenced
from fleet.locks import LockBusy, LockHandle, LockLost
from fleet.locks.calls import calls_of
from fleet.locks.handle import Terms
from fleet.store import Store, keys
from fleet.system.lifeline import watch_lifeline
from fleet.upstream.client import UpstreamClient
from fleet.upstream.cursor_store import CursorStore
from fleet.upstream.event_consumer import EventConsumer
from fleet.upstream.gateway_address import GatewayAddress
from fleet.upstream.outcome_reporter import OutcomeReporter

logger = logging.getLogger(__name__)

#: A waiting client is woken when the lock is free; after this long it queues again.
STANDBY_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.25
RETRY_DELAY_S = 1.0


def serve() -> None:
    """Take events until SIGTERM or SIGINT; without a configured gateway only wait for these."""
    watch_lifeline()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("fleet").setLevel(logging.INFO)
    asyncio.run(_serve(runtime.settings()))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    gateway = GatewayAddress.of(settings.upstream)
    if gateway is None:
        logger.info("no upstream is configured; nothing to run here")
        await stop.wait()
        return
    drainer = runtime.drainer()
    # The spool must drain also where no API runs.
    drainer.start()
    running = asyncio.create_task(_run(gateway, settings.lease_ttl_s))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in (running, stopping):
        task.cancel()
    drainer.close()
    with suppress(asyncio.CancelledError):
        await running


async def _run(gateway: GatewayAddress, ttl_s: float) -> None:
    """Consume events whenever the lock is free, until cancelled."""
    logged = ""
    while True:
        try:
            store = await asyncio.to_thread(runtime.unguarded_store)
            lock = _lock(store, gateway, ttl_s)
            async with lock:
                logger.info("this client takes the events of %s", gateway.name)
                logged = ""
                await _consume(store, gateway, lock)
        except LockBusy:
            if logged != "busy":
                logger.info("another client takes the events of %s; standing by", gateway.name)
            logged = "busy"
        except (LockLost, BrokerUnavailable) as error:
            if logged != str(error):
                logger.warning("no events of %s are taken: %s", gateway.name, error)
            logged = str(error)
            await asyncio.sleep(RETRY_DELAY_S)


def _lock(store: Store, gateway: GatewayAddress, ttl_s: float) -> LockHandle:
    lock = keys.lock_name("upstream", gateway.digest)
    title = "The place of the upstream client"
    return LockHandle(Terms(calls_of(store), lock, "", "joins", ttl_s, title), STANDBY_TIMEOUT_S)


async def _consume(store: Store, gateway: GatewayAddress, lock: LockHandle) -> None:
    """Take events while the lock is held. Raises LockLost and BrokerUnavailable."""
    cursors = CursorStore(store, gateway.digest, lock.token)
    cursor = await asyncio.to_thread(cursors.cursor)
    consumer = EventConsumer(runtime.spooling_intake(), cursors, gateway.name, cursor)
    reporter = OutcomeReporter(store, runtime.settings(), gateway, lambda: consumer.is_blocked)
    consuming = asyncio.create_task(UpstreamClient(gateway, consumer, cursors, reporter).run())
    try:
        while not lock.lost and not consuming.done():
            await asyncio.wait((consuming,), timeout=POLL_INTERVAL_S)
        if not consuming.done():
            raise LockLost("The place of the upstream client was lost.")
        await consuming
    except ExceptionGroup as group:
        if group.subgroup(Fenced) is None:
            raise
        raise LockLost("Another upstream client has taken over.") from group
    finally:
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
        with suppress(Fenced, BrokerUnavailable):
            await asyncio.to_thread(cursors.record_mode, None)
