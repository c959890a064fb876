"""One process of the clients that contend for a lock in `fleet bench locks`.

    python -m fleet.bench._lock_clients URL THREADS TURNS

It reads rounds from standard input, one a line: the lock's name, and the time to begin by
CLOCK_MONOTONIC. For each round it prints the time of its last thread's end, and all waits.
"""

import json
import os
import sys
import threading
import time
from contextlib import AbstractContextManager
from typing import Any

import redis

from fleet.bench._harness import TIMEOUT_S
from fleet.locks import SessionLock
from fleet.store import open_store

TTL_S = 60.0


class Ours:
    """The fleet's locks."""

    name = "fleet"

    def __init__(self, url: str) -> None:
        self.store = open_store(url)

    def lock(self, turn: str) -> AbstractContextManager[Any]:
        """The contended lock, for one client."""
        return SessionLock(self.store, "contended", turn, TTL_S, TIMEOUT_S)


class Theirs:
    """redis-py's Lock with its defaults: it polls every 100 ms."""

    name = "redis-py"

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)

    def lock(self, _turn: str) -> AbstractContextManager[Any]:
        """The contended lock, for one client."""
        lock: AbstractContextManager[Any] = self.client.lock(
            "bench:contended", timeout=TTL_S, blocking_timeout=TIMEOUT_S
        )
        return lock


Side = Ours | Theirs


def main(url: str, threads: int, turns: int) -> None:
    """Run rounds until standard input ends."""
    locks = {
        side.name: [side.lock(f"{os.getpid()}-{number}") for number in range(threads)]
        for side in (Ours(url), Theirs(url))
    }
    for line in sys.stdin:
        name, begins_at = line.split()
        print(json.dumps(_round(locks[name], turns, float(begins_at))), flush=True)


def _round(
    locks: list[AbstractContextManager[Any]], turns: int, begins_at: float
) -> dict[str, Any]:
    waits: list[list[float]] = [[] for _ in locks]

    def client(lock: AbstractContextManager[Any], mine: list[float]) -> None:
        time.sleep(max(0.0, begins_at - time.monotonic()))
        for _ in range(turns):
            asked_at = time.monotonic()
            with lock:
                mine.append(time.monotonic() - asked_at)

    clients = [
        threading.Thread(target=client, args=pair) for pair in zip(locks, waits, strict=True)
    ]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return {"ended_at": time.monotonic(), "waits_s": [wait for mine in waits for wait in mine]}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
