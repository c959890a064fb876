"""The supervisor's hook that starts the embedded broker again when its server ends."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from fleet.broker.embedded import EmbeddedBroker
from fleet.errors import BrokerUnavailable
from fleet.system.backoff import Backoff

#: A dead server is noticed after this long; a poll costs microseconds.
POLL_INTERVAL_S = 0.1
#: Between attempts that fail, as on a full disk.
BACKOFF = Backoff(0.5, 15.0)


async def keep_broker_running(broker: EmbeddedBroker, report: Callable[[str], None]) -> None:
    """Keep a started broker running until cancelled; report starts and failures."""
    failures = 0
    while True:
        await asyncio.sleep(POLL_INTERVAL_S)
        if broker.alive():
            # On a full disk the next poll tries again.
            with suppress(OSError):
                broker.republish()
            continue
        starting = asyncio.create_task(asyncio.to_thread(broker.start))
        try:
            endpoint = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread cannot be cancelled, and the next stop of the broker must not race it.
            await asyncio.gather(starting, return_exceptions=True)
            raise
        except BrokerUnavailable as error:
            failures += 1
            pause_s = BACKOFF.after_s(failures)
            report(f"{error} Next attempt in {pause_s:g} s.")
            await asyncio.sleep(pause_s)
        else:
            report(f"ended and was started again, pid {endpoint.pid}")
            failures = 0
