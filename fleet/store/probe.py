"""Test whether the broker is back: one process at a time, by a write that reports on the bus."""

import socket
from collections.abc import Callable

from fleet.broker.breaker import Breaker
from fleet.errors import BrokerUnavailable
from fleet.store import Store
from fleet.store.calls import BreakerCall


def probe(breaker: Breaker, store: Callable[[], Store], *, writable: bool = False) -> bool:
    """Probe when it is due and no other process does; True when the breaker is closed afterwards.

    `store` must not stand behind the breaker itself, and may raise BrokerUnavailable. See
    `fleet.broker.circuit.begin_probe` for `writable`.
    """
    asking = breaker.begin_probe(writable=writable)
    if asking is None:
        return breaker.closed
    well = False
    try:
        # Named by its time: all probes of one opening report it under one name.
        name = f"{socket.gethostname()}:{asking.since:.3f}"
        age_ms = int(breaker.age_s(asking) * 1000)
        call = BreakerCall(
            opening=name, host=socket.gethostname(), cause=asking.cause, age_ms=age_ms
        )
        store().run(call)
        well = True
    except BrokerUnavailable:
        pass
    finally:
        breaker.end_probe(well=well)
    return well
