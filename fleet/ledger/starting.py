"""Agents that are being started: having no worker is no fault yet.

A supervisor names its agents before the first worker begins. Each leaves the list with its lease,
and beat with its first tick. No alert about a missing worker is due while its agent is in the list.
"""

import logging
from collections.abc import Iterable
from typing import Any

from fleet.errors import BrokerUnavailable
from fleet.store import Store, keys
from fleet.store.alert_calls import StartingCall
from fleet.store.connection import reachable

logger = logging.getLogger(__name__)

#: Beat in the list; no agent can have this name.
BEAT = "|beat"
#: As in `_starting.lua`: nothing is in the list for longer.
START_S = 300.0


def begin(store: Store, agents: Iterable[str], *, beat: bool = False) -> None:
    """Name agents whose workers are about to be started, and beat with `beat`.

    Without a store nothing is recorded: an alert may then come early.
    """
    names = [*agents, *([BEAT] if beat else [])]
    try:
        store.run(StartingCall(names=names))
    except BrokerUnavailable as error:
        logger.info("the start of %d agents is not recorded: %s", len(names), error)


def names(store: Store) -> frozenset[str]:
    """The agents that are being started, and BEAT. Raises BrokerUnavailable."""
    with reachable():
        found: Any = store.client.hgetall(keys.STARTING)
        now_ms = store.clock.now_ms()
    return frozenset(
        name for name, since_ms in found.items() if now_ms - float(since_ms) < START_S * 1000
    )
