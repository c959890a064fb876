"""A store behind Sentinel: its connections go to the server that the sentinels name.

A server that is promoted has what had reached it. So a script's writes are confirmed only when a
replica has them, which the sentinels promote next; where there is none, while the server is still
the one that the sentinels name.
"""

import time
from typing import Any

import redis
from redis.sentinel import Sentinel, SentinelConnectionPool

from fleet.config.sentinel_address import SentinelAddress

#: A replica of the same network answers within milliseconds; one that is gone is not waited for.
REPLICA_WAIT_S = 0.5
#: A server without a replica is not waited for again in this time.
ALONE_S = 5.0


class BlockingSentinelPool(SentinelConnectionPool, redis.BlockingConnectionPool):
    """redis-py's pool for Sentinel, in which a call waits for a free connection."""


def sentinel_pool(url: str, *, timeout_s: float, **options: Any) -> BlockingSentinelPool:
    """A pool for the address; each new connection asks the sentinels first."""
    address = SentinelAddress.read(url)
    limits = ("socket_timeout", "socket_connect_timeout")
    manager = Sentinel(  # type: ignore[no-untyped-call]
        address.places,
        # Without a limit a sentinel that hangs would hold up its callers for ever.
        sentinel_kwargs={name: options[name] or timeout_s for name in limits},
    )
    return BlockingSentinelPool(  # type: ignore[no-untyped-call]
        address.master_name,
        manager,
        timeout=timeout_s,
        db=address.db,
        **address.credentials,
        **options,
    )


class Replicas:
    """Confirms a connection's writes; see above."""

    def __init__(self, pool: BlockingSentinelPool, wait_s: float = REPLICA_WAIT_S) -> None:
        self._pool = pool
        self._wait_ms = int(wait_s * 1000)
        self._alone_until = 0.0

    def confirm(self, connection: Any) -> None:
        """Return when a replica has this connection's writes. Raises redis-py's ConnectionError."""
        if time.monotonic() < self._alone_until:
            return
        connection.send_command("WAIT", 1, self._wait_ms)
        if int(connection.read_response()):
            return
        manager, name = self._pool.sentinel_manager, self._pool.service_name
        if manager.discover_master(name) != (connection.host, connection.port):
            raise redis.ConnectionError("the server was replaced by another one")
        self._alone_until = time.monotonic() + ALONE_S
