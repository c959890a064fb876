"""The processes of a fleet on one machine, and when each is ready."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from fleet.broker.endpoint import exists
from fleet.config.settings import Settings
from fleet.errors import BrokerUnavailable, FleetError
from fleet.ledger import agent_rows
from fleet.store import Store, keys
from fleet.store.connection import reachable
from fleet.supervisor.child import ProcessSpec
from fleet.supervisor.renewals import HOST
from fleet.supervisor.worker_arguments import QUIET, worker_argv
from fleet.system.listener import LISTENER_FD
from fleet.system.python import PYTHON

#: Importing LiteLLM takes 2 s, on a cold disk and a busy machine ten times that.
WORKER_READY_S = 120.0
READY_S = 60.0
#: Beyond drain_s: a worker closes its connections, a host waits for its workers.
STOP_MARGIN_S = 10.0
#: The others stop after it. Its history is saved by then, or as old as the last time.
VIEWER_STOP_S = 4.0
#: The longest wait for one answer of the API.
ANSWER_S = 3.0
LOOPBACK = "127.0.0.1"

Ready = Callable[[], Awaitable[bool]]
#: Called with the name of each agent when it takes work for the first time.
OnAgent = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of a fleet, chosen before anything is started."""

    api_host: str
    api_port: int
    flower_port: int | None  #: None when Flower is switched off

    @classmethod
    def choose(cls, settings: Settings) -> "Addresses":
        """Raises FleetError naming the setting when a port is taken."""
        api, flower = settings.api, settings.flower
        return cls(
            api.host,
            _free_port("api.port", api.host, api.port),
            # Events do not need Flower: a taken port delays it, and refuses nothing.
            (flower.port or _free_port("flower.port", LOOPBACK, 0)) if flower.enabled else None,
        )

    @property
    def api(self) -> str:
        """The API's URL; a wildcard address is reached through loopback."""
        wildcards = {"0.0.0.0": LOOPBACK, "::": "[::1]", "": LOOPBACK}  # noqa: S104 - not bound here
        host = f"[{self.api_host}]" if ":" in self.api_host else self.api_host
        return f"http://{wildcards.get(self.api_host, host)}:{self.api_port}"

    @property
    def flower(self) -> str | None:
        """Flower's URL."""
        return f"http://{LOOPBACK}:{self.flower_port}" if self.flower_port else None


def fleet_processes(
    settings: Settings,
    addresses: Addresses,
    store: Store,
    listener: int,
    on_agent: OnAgent = lambda _agent: None,
) -> list[ProcessSpec]:
    """Everything except the broker; the API gets the socket `listener`.

    No process needs another to start. Flower comes last all the same, because events do not need
    it: the fleet is ready before it answers.
    """
    specs = [*_workers(settings, store, on_agent), *_shared(settings, store, addresses, listener)]
    if settings.upstream.ws or settings.upstream.poll:
        specs.append(ProcessSpec("upstream", _fleet("upstream"), 1, starts_turns=True))
    if addresses.flower_port:
        specs.append(
            ProcessSpec(
                "flower",
                _fleet("flower"),
                2,
                env=_ports(addresses),
                stop_grace_s=VIEWER_STOP_S,
                viewer=True,
            )
        )
    return specs


def _workers(settings: Settings, store: Store, on_agent: OnAgent) -> list[ProcessSpec]:
    grace_s = settings.drain_s + STOP_MARGIN_S
    has_host = hasattr(os, "pidfd_open")  # which it needs to notice a worker's death
    if has_host:
        here = [name for queue in settings.workers_here for name in settings.served(queue)]
        ready = _leased(store, here, on_agent)
        commands = {HOST: (_fleet("host"), ready)}
    else:
        commands = {
            queue: (
                _celery(*worker_argv(settings, queue)[1:]),
                _leased(store, list(settings.served(queue)), on_agent),
            )
            for queue in settings.workers_here
        }
    return [
        ProcessSpec(
            name,
            argv,
            1,
            runs_turns=True,
            ready=ready,
            ready_timeout_s=WORKER_READY_S,
            stop_grace_s=grace_s,
            reload_signal=signal.SIGHUP if has_host else None,
            outputs=list(settings.workers_here) if has_host else [],
        )
        for name, (argv, ready) in commands.items()
    ]


def _shared(
    settings: Settings, store: Store, addresses: Addresses, listener: int
) -> list[ProcessSpec]:
    # A receiver that hangs must not hold up intake and repair: deliveries have their own worker.
    own = bool(settings.deliveries)
    names = "intake,maintenance" if own else "intake,maintenance,delivery"
    queues = ("-Q", names, "-c", "1", "-n", "shared@%h")
    delivery = ("-Q", "delivery", "-P", "threads", "-c", "32", "-n", "delivery@%h")
    quiet = (*QUIET, "-l", "WARNING")
    grace_s = settings.drain_s + STOP_MARGIN_S
    return [
        ProcessSpec(
            "shared",
            _celery("worker", *queues, *quiet),
            1,
            stop_grace_s=grace_s,
        ),
        *(
            [ProcessSpec("delivery", _celery("worker", *delivery, *quiet), 1, stop_grace_s=grace_s)]
            if own
            else []
        ),
        # A tick proves both: beat sent it and the shared worker took it.
        ProcessSpec(
            "beat",
            _celery("beat", "--pidfile=", "-l", "WARNING"),
            1,
            ready=_ticks(store),
            ready_timeout_s=WORKER_READY_S,
        ),
        ProcessSpec(
            "api",
            _fleet("api"),
            1,
            starts_turns=True,
            files=[listener],
            env={**_ports(addresses), LISTENER_FD: str(listener)},
            ready=_answers(addresses.api_host, addresses.api_port, "/readyz"),
            ready_timeout_s=READY_S,
        ),
    ]


def _ports(addresses: Addresses) -> dict[str, str]:
    """The ports that API and Flower read: each listens on its own, and the API links to Flower."""
    ports = {"FLEET_API__PORT": str(addresses.api_port)}
    if addresses.flower_port:
        ports["FLEET_FLOWER__PORT"] = str(addresses.flower_port)
    return ports


def _celery(*args: str) -> list[str]:
    return [*PYTHON, "-m", "fleet.supervisor.celery_child", "-A", "fleet", *args]


def _fleet(*args: str) -> list[str]:
    return [*PYTHON, "-m", "fleet", *args]


def _leased(store: Store, agents: list[str], on_agent: OnAgent) -> Ready:
    """True when a living worker serves each agent, here or on another host."""
    this_host = socket.gethostname()
    told: set[str] = set()

    def query() -> bool:
        rows = agent_rows.rows(store, agents)
        served = {
            name
            for name, row in rows.items()
            if row["consuming"] and _lives(str(row["holder"]), this_host)
        }
        for name in sorted(served - told):
            on_agent(name)
        told.update(served)
        return len(served) == len(agents)

    return _polled(query)


def _lives(holder: str, this_host: str) -> bool:
    # The lease of a killed worker of this machine lasts for another moment.
    host, _, pid = holder.rpartition(":")
    return host != this_host or not pid.isdigit() or exists(int(pid))


def _ticks(store: Store) -> Ready:
    """True when a periodic job has run since this call."""
    before: list[dict[str, str]] = []

    def query() -> bool:
        with reachable():
            now: dict[str, str] = store.client.hgetall(keys.BEAT)  # type: ignore[assignment]
        before.append(now)
        return now != before[0]

    return _polled(query)


def _polled(query: Callable[[], bool]) -> Ready:
    async def ready() -> bool:
        try:
            return await asyncio.to_thread(query)
        except BrokerUnavailable:
            return False

    return ready


def _answers(host: str, port: int, path: str) -> Ready:
    """True when an HTTP GET is answered with 200."""

    async def get() -> bool:
        reader, writer = await asyncio.open_connection(host or LOOPBACK, port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            status = await reader.readline()
        finally:
            writer.close()
        return status.split(b" ")[1:2] == [b"200"]

    async def ready() -> bool:
        # A connection waits in the socket while no process takes it.
        with suppress(OSError):  # TimeoutError, too
            async with asyncio.timeout(ANSWER_S):
                return await get()
        return False

    return ready


def _free_port(key: str, host: str, port: int) -> int:
    """The port itself, or a free one for 0. Raises FleetError when it cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a closing connection of the last run does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise FleetError(
                f"{key}: cannot listen on {host}:{port} ({error.strerror or error}); "
                f"set {key} to another port, or to 0 for a free one."
            ) from error
        return int(probe.getsockname()[1])
