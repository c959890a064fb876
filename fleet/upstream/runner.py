"""The process `fleet upstream`: waits for its turn, takes events, tells what became of them, and
gives its place back.

The lock only spares the gateway a crowd of clients. That no event runs twice does not rest on it:
the intake knows an event by source and id, whoever brings it.
"""

import asyncio
import logging
import signal
from collections.abc import Sequence
from contextlib import suppress

from fleet.config.settings import load
from fleet.errors import BrokerUnavailable, Fenced
from fleet.locks import LockBusy, LockHandle, LockLost
from fleet.locks.calls import calls_of
from fleet.locks.handle import Terms
from fleet.runtime import Runtime
from fleet.store import Store, keys
from fleet.system.lifeline import watch_lifeline
from fleet.upstream.client import UpstreamClient
from fleet.upstream.cursor_store import CursorStore
from fleet.upstream.event_consumer import EventConsumer
from fleet.upstream.gateway_address import GatewayAddress
from fleet.upstream.outcome_reporter import OutcomeReporter

logger = logging.getLogger(__name__)

#: A client that stands by is woken when the place is free, and stands in line anew after this.
STAND_BY_S = 5.0
POLL_INTERVAL_S = 0.25
RETRY_S = 1.0


def serve(offline_command: Sequence[str]) -> None:
    """Take events until SIGTERM or SIGINT; only wait for it where no gateway is configured.

    `offline_command` starts the process that runs spooled events.
    """
    watch_lifeline()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("fleet").setLevel(logging.INFO)
    asyncio.run(_serve(Runtime(load(), spools=True, offline_command=offline_command)))


async def _serve(runtime: Runtime) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    gateway = GatewayAddress.of(runtime.settings.upstream)
    if gateway is None:
        logger.info("no upstream is configured; nothing to run here")
        await told.wait()
        return
    drainer = runtime.drainer
    # What is kept while the broker is away must also leave the spool where no API runs.
    drainer.start()
    working = asyncio.create_task(_work(runtime, gateway))
    ended = asyncio.create_task(told.wait())
    await asyncio.wait((working, ended), return_when=asyncio.FIRST_COMPLETED)
    for task in (working, ended):
        task.cancel()
    drainer.close()
    with suppress(asyncio.CancelledError):
        await working


async def _work(runtime: Runtime, gateway: GatewayAddress) -> None:
    """Lead whenever nobody else does. Only ends by being cancelled."""
    said = ""
    while True:
        try:
            store = await asyncio.to_thread(lambda: runtime.unguarded_store)
            hold = _hold(store, gateway, runtime.settings.lease_ttl_s)
            async with hold:
                logger.info("this client takes the events of %s", gateway.name)
                said = ""
                await _lead(runtime, store, gateway, hold)
        except LockBusy:
            if said != "busy":
                logger.info("another client takes the events of %s; standing by", gateway.name)
            said = "busy"
        except (LockLost, BrokerUnavailable) as error:
            if said != str(error):
                logger.warning("no events of %s are taken: %s", gateway.name, error)
            said = str(error)
            await asyncio.sleep(RETRY_S)


def _hold(store: Store, gateway: GatewayAddress, ttl_s: float) -> LockHandle:
    lock = keys.lock_name("upstream", gateway.digest)
    title = "The place of the upstream client"
    return LockHandle(Terms(calls_of(store), lock, "", "joins", ttl_s, title), STAND_BY_S)


async def _lead(runtime: Runtime, store: Store, gateway: GatewayAddress, hold: LockHandle) -> None:
    """Take events while the lock is held. Raises LockLost and BrokerUnavailable."""
    desk = CursorStore(store, gateway.digest, hold.token)
    cursor = await asyncio.to_thread(desk.cursor)
    taker = EventConsumer(runtime.intake, desk, gateway.name, cursor)
    teller = OutcomeReporter(store, runtime.settings, gateway, lambda: taker.is_held_up)
    taking = asyncio.create_task(UpstreamClient(gateway, taker, desk, teller).run())
    try:
        while not hold.lost and not taking.done():
            await asyncio.wait((taking,), timeout=POLL_INTERVAL_S)
        if not taking.done():
            raise LockLost("The place of the upstream client was lost.")
        await taking
    except ExceptionGroup as group:
        if group.subgroup(Fenced) is None:
            raise
        raise LockLost("Another upstream client has taken over.") from group
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        with suppress(Fenced, BrokerUnavailable):
            await asyncio.to_thread(desk.record_mode, None)
