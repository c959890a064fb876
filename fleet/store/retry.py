"""Calls that are worth waiting for a store that is away."""

import time
from collections.abc import Callable
from typing import TypeVar

from fleet.errors import BrokerUnavailable

Answer = TypeVar("Answer")


def retry_while_away(call: Callable[[], Answer], timeout_s: float, delay_s: float = 0.2) -> Answer:
    """The answer of `call`; raises BrokerUnavailable once the store was away for `timeout_s`."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except BrokerUnavailable:
            if time.monotonic() + delay_s > until:
                raise
            time.sleep(delay_s)
