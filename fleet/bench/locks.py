"""`fleet bench locks`: the cost of a lock alone, and under contention of 64 clients.

Alone: microseconds to acquire and release, by one thread; `rw_us` is the reader/writer lock of a
turn, reading and writing alternately. Under contention: all clients, threads of a few processes,
acquire one lock equally often, as fast as they can, and release it at once. The figure is the
microseconds per acquisition over the whole round. `max_wait_ratio` is the longest wait divided by
the median wait, a measure of unfairness.

redis-py has one kind of lock, without order and without token; it is measured in each place.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import cycle, islice, repeat
from typing import IO, Any, cast

from fleet.bench import _lock_clients
from fleet.bench._harness import Figures, Option, bench, medians, progress, rounded
from fleet.bench._lock_clients import Ours, Side, Theirs
from fleet.errors import FleetError
from fleet.locks import SessionLock, TurnRWLock

OPTIONS: dict[str, Option] = {
    "seed": 1,
    "rounds": 5,
    "alone": 200,  # of each kind, in each of five times as many rounds
    "clients": 64,
    "processes": 4,
    "turns": 30,  # of each client, in each round
    "durability": "everysec",
}

OF = "redis-py Lock with its defaults (asks every 100 ms); the same one for rw_us"

#: The lead time in which all clients read the line.
LEAD_S = 0.2


class LockClient:
    """A process of clients; it ends when its standard input is closed."""

    def __init__(self, url: str, threads: int, turns: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", _lock_clients.__name__, url, str(threads), str(turns)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._in = cast("IO[str]", self._process.stdin)
        self._out = cast("IO[str]", self._process.stdout)

    def send(self, line: str) -> None:
        """Send a line. Raises FleetError when the process has ended."""
        try:
            print(line, file=self._in, flush=True)
        except OSError as error:
            raise self._ended() from error

    def receive(self) -> Any:
        """Wait for the figures. Raises FleetError when the process has ended."""
        line = self._out.readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.communicate()

    def _ended(self) -> FleetError:
        return FleetError(f"A client of the benchmark ended with code {self._process.wait()}.")


def run(**given: Option) -> dict[str, Any]:
    """Run the benchmark. Raises FleetError when a client fails."""
    with bench("locks", OF, OPTIONS, given) as here:
        url = here.where.endpoint.url
        sides: list[Side] = [Ours(url), Theirs(url)]
        with _clients(url, here.options) as clients:
            for side in sides:
                _alone(side, 50)
                _contended(side, clients)
            progress("warmed up")
            alone = here.in_turns(sides, lambda side: _alone(side, here.number("alone")), times=5)
            contended = here.in_turns(sides, lambda side: _contended(side, clients))
        return here.report(
            *({**medians(alone[place]), **medians(contended[place])} for place in range(2))
        )


def _alone(side: Side, times: int) -> Figures:
    if isinstance(side, Ours):
        turn = TurnRWLock(side.store, "alone")
        session = repeat(SessionLock(side.store, "alone", "turn"))
        reads_and_writes = (kind() for kind in cycle((turn.read, turn.write)))
        return {
            "session_us": _each_us(session, times),
            "rw_us": _each_us(reads_and_writes, times),
        }
    lock = repeat(side.client.lock("bench:alone", timeout=_lock_clients.TTL_S))
    return {"session_us": _each_us(lock, times), "rw_us": _each_us(lock, times)}


def _each_us(locks: Iterator[AbstractContextManager[Any]], times: int) -> float:
    began = time.perf_counter()
    for lock in islice(locks, times):
        with lock:
            pass
    return rounded((time.perf_counter() - began) / times * 1e6)


def _contended(side: Side, clients: Sequence[LockClient]) -> Figures:
    begins_at = time.monotonic() + LEAD_S
    for client in clients:
        client.send(f"{side.name} {begins_at}")
    answers = [client.receive() for client in clients]
    waits = [wait for answer in answers for wait in answer["waits_s"]]
    took_s = max(answer["ended_at"] for answer in answers) - begins_at
    return {
        "contended_us": rounded(took_s / len(waits) * 1e6),
        "max_wait_ratio": rounded(max(waits) / statistics.median(waits)),
    }


@contextmanager
def _clients(url: str, options: dict[str, Option]) -> Iterator[list[LockClient]]:
    processes = int(options["processes"])
    threads = max(1, int(options["clients"]) // processes)
    started = [LockClient(url, threads, int(options["turns"])) for _ in range(processes)]
    try:
        yield started
    finally:
        for client in started:
            client.stop()
