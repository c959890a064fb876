"""Commands to the worker that holds an agent, by a short-lived list: `fleet:orders:<agent>`.

A command only hurries the worker: the ledger already holds the decision.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from fleet import runtime
from fleet.errors import BrokerUnavailable
from fleet.store import keys, open_store
from fleet.store.address import store_url
from fleet.store.connection import reachable

logger = logging.getLogger(__name__)

_BLOCK_S = 20
_RETRY_DELAY_S = 0.5


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the turn of a dispatch that was cancelled at once."""

    dispatch_id: str


def follow_commands(agent: str) -> Iterator[Stop]:
    """Commands for one agent, for ever; waits while the broker is away."""
    settings = runtime.settings()
    store = open_store(store_url(settings), socket_timeout_s=_BLOCK_S * 2)
    while True:
        try:
            with reachable():
                answer = store.client.blpop([keys.commands(agent)], timeout=_BLOCK_S)
        except BrokerUnavailable as error:
            logger.info("no commands: %s", error)
            time.sleep(_RETRY_DELAY_S)
            continue
        if answer:
            yield Stop(str(answer[1]).removeprefix("stop "))
