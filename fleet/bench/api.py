"""`fleet bench api`: events accepted per second through `POST /events`, by 16 connections.

Each connection sends its next event after the answer to the last. The peer is an endpoint on the
same ASGI server that publishes a bare Celery task to the same broker. Rounds alternate, and each
starts with an empty broker. Nothing is consumed. A text is 200 characters long.
"""

from contextlib import ExitStack
from typing import Any

from fleet.bench import _api_clients, _api_peer
from fleet.bench._harness import Figures, Option, bench, progress, rounded
from fleet.bench._servers import LOOPBACK, ClientProcess, Server
from fleet.errors import FleetError

OPTIONS: dict[str, Option] = {
    "seed": 1,
    "rounds": 3,
    "events": 3000,  # in each round
    "connections": 16,
    "durability": "everysec",
}

OF = "starlette and uvicorn before celery send_task"
TEXT = "x" * 200


def run(**given: Option) -> dict[str, Any]:
    """Measure; see the module. Raises FleetError when a server refuses an event."""
    with bench("api", OF, OPTIONS, given) as here, ExitStack() as stack:
        servers = [Server.fleet(here.where), Server.peer("celery", _api_peer, here.where)]
        for server in servers:
            stack.callback(server.stop)
        clients = ClientProcess(_api_clients)
        stack.callback(clients.stop)
        for server in servers:
            server.await_ready()
            _round(server, clients, here.options | {"events": 200})
        progress("warmed up")

        def measure(server: Server) -> Figures:
            with here.where.client() as client:
                client.flushall()
            return _round(server, clients, here.options)

        return here.compare(servers, measure)


def _round(server: Server, clients: ClientProcess, options: dict[str, Option]) -> Figures:
    found = clients.request(
        "send",
        host=LOOPBACK,
        port=server.port,
        connections=int(options["connections"]),
        events=int(options["events"]),
        text=TEXT,
    )
    if found["accepted"] < found["sent"]:
        raise FleetError(f"{server.name} accepted {found['accepted']} of {found['sent']} events.")
    return {"accepted_per_s": rounded(found["accepted_per_s"]), "p99_ms": rounded(found["p99_ms"])}
