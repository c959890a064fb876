"""The memory of a store outside of it: a store that went back is noticed, and stops the fleet.

The problem: a store that was emptied, or restored from an older backup, answers as a healthy one.
Dispatches that ended since the backup would run again, duplicates would count as new, and whoever
follows the bus would miss what comes. Each machine keeps the newest numbers of its store in its
data folder, and compares them at the start of a worker and every few seconds. Where they went back,
nothing is accepted and no turn begins until an operator's `fleet recover`.

A store that lost no more than its last `LOST_MS`, as a promoted replica has, goes on: its loss is
an alert, and its numbers go on above those that were given.
"""

import json
import logging
from typing import Any

from fleet.config.settings import Settings
from fleet.errors import StoreLost
from fleet.store import Store, keys
from fleet.store.address import broker_identity
from fleet.store.connection import reachable
from fleet.store.life_calls import LifeCall, RecoverCall
from fleet.system import files
from fleet.system.data_dir import private

logger = logging.getLogger(__name__)

#: More than a replica lags, or a server writes to its disk at once.
LOST_MS = 60_000
#: A data folder remembers so many stores.
STORES_MAX = 8


def look(store: Store, settings: Settings) -> str:
    """Compare and remember; answers why the fleet stands still, or ''. Raises FleetError."""
    path = private(settings.data_dir) / "store.json"
    name = broker_identity(settings)
    known: dict[str, Any] = {}
    try:
        known = files.read_json(path) or {}
    except OSError as error:
        logger.warning("%s cannot be read (%s): see its owner", path, error.strerror)
    before = known.get(name) or {}
    call = LifeCall(
        epoch=before.get("epoch", ""),
        seq=before.get("seq", 0),
        bus=before.get("bus", ""),
        alive_ms=before.get("alive_ms", 0),
        fences=json.dumps(before.get("fences", {})),
        lost_ms=LOST_MS,
    )
    found: dict[str, Any] = json.loads(store.run(call))
    lost = str(found.pop("lost"))
    fences = iter(found["fences"])
    found["fences"] = dict(zip(fences, fences, strict=True))
    others = [(other, kept) for other, kept in known.items() if other != name]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, json.dumps(dict([*others[1 - STORES_MAX :], (name, found)])))
    except OSError as error:
        logger.warning("%s cannot be written (%s): make room", path, error.strerror)
    return lost


def is_known_lost(store: Store, settings: Settings, epoch: str) -> bool:
    """True when the store knows that its life `epoch` is over, after a look. Raises FleetError."""
    look(store, settings)
    with reachable():
        return bool(store.client.hexists(keys.FORMER, epoch))


def check_lost(store: Store) -> None:
    """Raise StoreLost while the fleet stands still. Raises BrokerUnavailable."""
    with reachable():
        reason = store.client.hget(keys.LOST, "reason")
    if reason:
        raise StoreLost.of(str(reason))


def recover(store: Store) -> str:
    """Let the fleet go on; answers why it stood still, or ''. Raises BrokerUnavailable."""
    return store.run(RecoverCall())
