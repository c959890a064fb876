"""`fleet bench bus`: what a bus client waits, and what one delivery costs.

For each number of WebSocket clients: ten events a second for some seconds, from the call that
publishes one to its arrival at each client; then a burst, as deliveries per second from the first
event to the last delivery; then the server's CPU time per delivery of both. `replay` is what fifty
live clients wait while a hundred others come back who have missed 5,000 events, beside what they
wait without that.

The peer is an endpoint with one blocking read per client on the same ASGI server and the same
broker. Both run all the time, and their rounds take turns.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from fleet.bench import _bus_clients, _bus_peer
from fleet.bench._harness import Figures, Lab, Option, bench, medians, progress, rounded
from fleet.bench._servers import LOOPBACK, Helper, Server
from fleet.ledger import bus as fleet_bus
from fleet.store import Store, open_store
from fleet.store.calls import AlertCall

OPTIONS: dict[str, Option] = {
    "seed": 1,
    "clients": "50,500,1000",
    "rounds": 1,
    "seconds": 3.0,  # at ten events a second, in each round
    "burst": 50_000,  # deliveries, in each round
    "replay": 4990,  # events that each returning client has missed; from 5,000 on it is refused
    "returning": 100,
    "durability": "everysec",
}

OF = "a WebSocket endpoint with one blocking XREAD per client: starlette, uvicorn, redis.asyncio"

PER_S = 10
#: What has not come by then is missed.
TIMEOUT_S = 30.0
#: Before and after a round, until the servers have nothing to do any more.
LEAVE_S = 0.5
WATCHERS = 50
#: Half a million deliveries to a hundred clients.
REPLAY_TIMEOUT_S = 150.0


class Publisher:
    """Puts numbered events on the bus, each with the time at which it was published."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.last = 0

    def publish(self, count: int = 1) -> int:
        """The time at which the first of them was published (CLOCK_MONOTONIC, ns)."""
        now = time.monotonic_ns()
        numbers = range(self.last + 1, self.last + count + 1)
        calls = [AlertCall(name="bench", reason=f"{n}.{now}") for n in numbers]
        self._store.run_many(AlertCall, calls)
        self.last += count
        return now

    def steadily(self, seconds: float) -> int:
        """PER_S events a second; how many that were."""
        count = max(1, round(seconds * PER_S))
        begins = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, begins + number / PER_S - time.monotonic()))
            self.publish()
        return count

    def newest(self) -> str:
        """The place of the last event."""
        return fleet_bus.last_id(self._store)


def run(**given: Option) -> dict[str, Any]:
    """Measure; see the module. Raises FleetError when a part fails."""
    with (
        bench("bus", OF, OPTIONS, given) as here,
        _parts(here.where) as (servers, crowd, others, publisher),
    ):
        options = here.options
        counts = [int(count) for count in str(options["clients"]).split(",")]
        found: list[Figures] = [{}, {}]
        for count in counts:
            rounds: list[list[Figures]] = [[], []]
            for number in range(here.number("rounds")):
                for place in (0, 1) if number % 2 == 0 else (1, 0):
                    figures = _round(servers[place], crowd, publisher, count, options)
                    said = " ".join(f"{k}={v:g}" for k, v in figures.items())
                    progress(f"{count} clients, {servers[place].name}: {said}")
                    rounds[place].append(figures)
            for place in (0, 1):
                found[place][str(count)] = medians(rounds[place])
        for place in (0, 1):
            figures = _replay(servers[place], crowd, others, publisher, options)
            said = " ".join(f"{k}={v:g}" for k, v in figures.items())
            progress(f"replay, {servers[place].name}: {said}")
            found[place]["replay"] = figures
        return here.report(*found)


@contextmanager
def _parts(where: Lab) -> Iterator[tuple[list[Server], Helper, Helper, Publisher]]:
    with ExitStack() as stack:
        store = open_store(where.endpoint.url, bus_max_length=20_000)
        stack.callback(store.close)
        publisher = Publisher(store)
        publisher.publish()
        servers = [Server.fleet(where), Server.peer("reader per client", _bus_peer, where)]
        for server in servers:
            stack.callback(server.stop)
        crowds = Helper(_bus_clients), Helper(_bus_clients)
        for crowd in crowds:
            stack.callback(crowd.stop)
        for server in servers:
            server.await_ready()
        yield servers, *crowds, publisher


def _round(
    server: Server, crowd: Helper, publisher: Publisher, count: int, options: dict[str, Option]
) -> Figures:
    _open(server, crowd, count)
    crowd.ask("begin", last=publisher.last)
    used_s = server.cpu_s()
    crowd.tell("wait", deliveries=count * _steady(options), seconds=_patience(options))
    events = publisher.steadily(float(options["seconds"]))
    steady = crowd.answer()
    burst = max(1, int(options["burst"]) // count)
    crowd.ask("begin", last=publisher.last)
    crowd.tell("wait", deliveries=count * burst, seconds=TIMEOUT_S)
    began_ns = publisher.publish(burst)
    rushed = crowd.answer()
    used_s = server.cpu_s() - used_s
    _leave(publisher, crowd)
    received = steady["received"] + rushed["received"]
    return {
        "p50_ms": rounded(steady["p50_ms"]),
        "p99_ms": rounded(steady["p99_ms"]),
        "burst_per_s": rounded(rushed["received"] / max(1, rushed["newest_ns"] - began_ns) * 1e9),
        "cpu_us_per_delivery": rounded(used_s / max(1, received) * 1e6),
        "missed": count * (events + burst) - received,
        "duplicated": steady["duplicated"] + rushed["duplicated"],
    }


def _leave(publisher: Publisher, *crowds: Helper) -> None:
    """Hang up. A reader of the peer notices when it sends, so there is something to send."""
    for crowd in crowds:
        crowd.ask("close")
    publisher.publish()
    time.sleep(LEAVE_S)


def _replay(
    server: Server,
    crowd: Helper,
    others: Helper,
    publisher: Publisher,
    options: dict[str, Option],
) -> Figures:
    missed, returning = int(options["replay"]), int(options["returning"])
    _open(server, crowd, WATCHERS)
    quiet = _watch(crowd, publisher, options)
    cursor, behind = publisher.newest(), publisher.last
    crowd.ask("begin", last=behind)
    for start in range(0, missed, 100):
        publisher.publish(min(100, missed - start))
    crowd.ask("wait", deliveries=WATCHERS * missed, seconds=TIMEOUT_S)
    others.ask("begin", last=behind)
    whole = returning * (missed + _steady(options))
    began = time.monotonic_ns()
    query = f"?last-event-id={cursor}"
    others.ask("open", host=LOOPBACK, port=server.port, count=returning, query=query)
    during = _watch(crowd, publisher, options)
    replayed = others.ask("wait", deliveries=whole, seconds=REPLAY_TIMEOUT_S)
    _leave(publisher, crowd, others)
    return {
        "quiet_p99_ms": rounded(quiet["p99_ms"]),
        "during_p99_ms": rounded(during["p99_ms"]),
        "during_to_quiet": rounded(during["p99_ms"] / max(1e-3, quiet["p99_ms"])),
        "replay_s": rounded((replayed["newest_ns"] - began) / 1e9),
        "missed": whole - replayed["received"],
        "duplicated": replayed["duplicated"],
    }


def _watch(crowd: Helper, publisher: Publisher, options: dict[str, Option]) -> dict[str, Any]:
    crowd.ask("begin", last=publisher.last)
    crowd.tell("wait", deliveries=WATCHERS * _steady(options), seconds=_patience(options))
    publisher.steadily(float(options["seconds"]))
    return crowd.answer()


def _open(server: Server, crowd: Helper, count: int) -> None:
    crowd.ask("open", host=LOOPBACK, port=server.port, count=count, query="")
    time.sleep(LEAVE_S)  # the peer's clients still ask where the stream ends


def _steady(options: dict[str, Option]) -> int:
    return max(1, round(float(options["seconds"]) * PER_S))


def _patience(options: dict[str, Option]) -> float:
    return float(options["seconds"]) + TIMEOUT_S
