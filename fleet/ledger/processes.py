"""Processes that keep ending, told by the supervisor of each machine: `fleet:failing`.

For people. A supervisor repeats what it tells, so that what a killed one told goes out of date.
"""

import json
from collections.abc import Mapping
from typing import Any

from fleet.store import Store, keys
from fleet.store.connection import reachable

#: What was not told again for this long is out of date.
STALE_S = 30.0


def record_failing(store: Store, host: str, failing: Mapping[str, str]) -> None:
    """Tell of the failing processes of a machine, in place of all that it told before."""
    with reachable():
        if not failing:
            store.client.hdel(keys.FAILING, host)
            return
        seconds, micros = store.client.time()
        told = json.dumps({"at": seconds + micros / 1e6, "processes": dict(failing)})
        pipe = store.client.pipeline(transaction=True)
        pipe.hset(keys.FAILING, host, told)
        pipe.expire(keys.FAILING, int(4 * STALE_S))
        pipe.execute()


def failing(store: Store) -> list[dict[str, Any]]:
    """The failing processes of all machines: `host`, `process` and `reason` of each."""
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        pipe.hgetall(keys.FAILING)
        pipe.time()
        found, (seconds, micros) = pipe.execute()
    now = seconds + micros / 1e6
    told = {host: json.loads(text) for host, text in found.items()}
    return [
        {"host": host, "process": name, "reason": reason}
        for host, row in sorted(told.items())
        if now - row["at"] < STALE_S
        for name, reason in sorted(row["processes"].items())
    ]
