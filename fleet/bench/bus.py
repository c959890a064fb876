"""`fleet bench bus`: the latency of bus clients, and the cost of a delivery.

For each number of WebSocket clients: first the latency at ten events a second, from the publishing
call to the arrival at each client; then a burst, as deliveries per second from the first event to
the last delivery; then the server's CPU time per delivery of both. `replay` is the latency of fifty
live clients while a hundred others reconnect that have missed 5,000 events, and without them.

The peer is an endpoint with one blocking read per client on the same ASGI server and the same
broker. Both run all the time, and their rounds alternate.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from fleet.bench import _bus_clients, _bus_peer
from fleet.bench._harness import Figures, Lab, Option, bench, medians, progress, rounded
from fleet.bench._servers import LOOPBACK, ClientProcess, Server
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
#: A delivery that has not come by then is missed.
TIMEOUT_S = 30.0
#: Before and after a round, until the servers are idle.
PAUSE_S = 0.5
WATCHERS = 50
#: Half a million deliveries to a hundred clients.
REPLAY_TIMEOUT_S = 150.0


class Publisher:
    """A publisher of numbered events on the bus, each with its time of publishing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.last = 0

    def publish(self, count: int = 1) -> int:
        """Publish `count` events; return the time of the first (CLOCK_MONOTONIC, ns)."""
        now = time.monotonic_ns()
        numbers = range(self.last + 1, self.last + count + 1)
        calls = [AlertCall(name="bench", reason=f"{n}.{now}") for n in numbers]
        self._store.run_many(AlertCall, calls)
        self.last += count
        return now

    def steadily(self, seconds: float) -> int:
        """Publish PER_S events a second; return their number."""
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
    """Run the benchmark. Raises FleetError when a part fails."""
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
                    text = " ".join(f"{k}={v:g}" for k, v in figures.items())
                    progress(f"{count} clients, {servers[place].name}: {text}")
                    rounds[place].append(figures)
            for place in (0, 1):
                found[place][str(count)] = medians(rounds[place])
        for place in (0, 1):
            figures = _replay(servers[place], crowd, others, publisher, options)
            text = " ".join(f"{k}={v:g}" for k, v in figures.items())
            progress(f"replay, {servers[place].name}: {text}")
            found[place]["replay"] = figures
        return here.report(*found)


@contextmanager
def _parts(where: Lab) -> Iterator[tuple[list[Server], ClientProcess, ClientProcess, Publisher]]:
    with ExitStack() as stack:
        store = open_store(where.endpoint.url, bus_max_length=20_000)
        stack.callback(store.close)
        publisher = Publisher(store)
        publisher.publish()
        servers = [Server.fleet(where), Server.peer("reader per client", _bus_peer, where)]
        for server in servers:
            stack.callback(server.stop)
        crowds = ClientProcess(_bus_clients), ClientProcess(_bus_clients)
        for crowd in crowds:
            stack.callback(crowd.stop)
        for server in servers:
            server.await_ready()
        yield servers, *crowds, publisher


def _round(
    server: Server,
    crowd: ClientProcess,
    publisher: Publisher,
    count: int,
    options: dict[str, Option],
) -> Figures:
    _open(server, crowd, count)
    crowd.request("begin", last=publisher.last)
    used_s = server.cpu_s()
    crowd.send("wait", deliveries=count * _steady(options), seconds=_timeout_s(options))
    events = publisher.steadily(float(options["seconds"]))
    steady = crowd.receive()
    burst = max(1, int(options["burst"]) // count)
    crowd.request("begin", last=publisher.last)
    crowd.send("wait", deliveries=count * burst, seconds=TIMEOUT_S)
    began_ns = publisher.publish(burst)
    rushed = crowd.receive()
    used_s = server.cpu_s() - used_s
    _disconnect(publisher, crowd)
    received = steady["received"] + rushed["received"]
    return {
        "p50_ms": rounded(steady["p50_ms"]),
        "p99_ms": rounded(steady["p99_ms"]),
        "burst_per_s": rounded(rushed["received"] / max(1, rushed["newest_ns"] - began_ns) * 1e9),
        "cpu_us_per_delivery": rounded(used_s / max(1, received) * 1e6),
        "missed": count * (events + burst) - received,
        "duplicated": steady["duplicated"] + rushed["duplicated"],
    }


def _disconnect(publisher: Publisher, *crowds: ClientProcess) -> None:
    """Disconnect. The peer notices a closed connection when it sends, so publish an event."""
    for crowd in crowds:
        crowd.request("close")
    publisher.publish()
    time.sleep(PAUSE_S)


def _replay(
    server: Server,
    crowd: ClientProcess,
    others: ClientProcess,
    publisher: Publisher,
    options: dict[str, Option],
) -> Figures:
    missed, returning = int(options["replay"]), int(options["returning"])
    _open(server, crowd, WATCHERS)
    quiet = _watch(crowd, publisher, options)
    cursor, behind = publisher.newest(), publisher.last
    crowd.request("begin", last=behind)
    for start in range(0, missed, 100):
        publisher.publish(min(100, missed - start))
    crowd.request("wait", deliveries=WATCHERS * missed, seconds=TIMEOUT_S)
    others.request("begin", last=behind)
    whole = returning * (missed + _steady(options))
    began = time.monotonic_ns()
    query = f"?last-event-id={cursor}"
    others.request("open", host=LOOPBACK, port=server.port, count=returning, query=query)
    during = _watch(crowd, publisher, options)
    replayed = others.request("wait", deliveries=whole, seconds=REPLAY_TIMEOUT_S)
    _disconnect(publisher, crowd, others)
    return {
        "quiet_p99_ms": rounded(quiet["p99_ms"]),
        "during_p99_ms": rounded(during["p99_ms"]),
        "during_to_quiet": rounded(during["p99_ms"] / max(1e-3, quiet["p99_ms"])),
        "replay_s": rounded((replayed["newest_ns"] - began) / 1e9),
        "missed": whole - replayed["received"],
        "duplicated": replayed["duplicated"],
    }


def _watch(
    crowd: ClientProcess, publisher: Publisher, options: dict[str, Option]
) -> dict[str, Any]:
    crowd.request("begin", last=publisher.last)
    crowd.send("wait", deliveries=WATCHERS * _steady(options), seconds=_timeout_s(options))
    publisher.steadily(float(options["seconds"]))
    return crowd.receive()


def _open(server: Server, crowd: ClientProcess, count: int) -> None:
    crowd.request("open", host=LOOPBACK, port=server.port, count=count, query="")
    time.sleep(PAUSE_S)  # the peer's clients still ask where the stream ends


def _steady(options: dict[str, Option]) -> int:
    return max(1, round(float(options["seconds"]) * PER_S))


def _timeout_s(options: dict[str, Option]) -> float:
    return float(options["seconds"]) + TIMEOUT_S
