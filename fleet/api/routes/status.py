"""Health, metrics and probes over HTTP."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import rights_of
from fleet.api.bus.hub import Hub
from fleet.api.live.hub import LiveTextHub
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.problems import RETRY_AFTER_S, Problem
from fleet.errors import FleetError, StoreLost
from fleet.ledger import store_life
from fleet.ops import health, metrics
from fleet.ops.health import HealthScope
from fleet.ops.metrics import Clients
from fleet.runtime import Runtime
from fleet.store import keys
from fleet.store.connection import reachable

#: Probes give up within seconds: a negative answer in time is better than none.
PROBE_S = 2.0
_READY_KEY_MS = 60_000


class Status:
    """The endpoints `/health`, `/livez`, `/readyz` and `/metrics`."""

    def __init__(self, runtime: Runtime, hub: Hub, live_text: LiveTextHub) -> None:
        self._runtime = runtime
        self._hub = hub
        flower = runtime.settings.flower
        self._flower = f"http://127.0.0.1:{flower.port}" if flower.enabled and flower.port else None
        self._live_text = live_text
        # Separate threads: a probe does not wait behind slow requests.
        self._threads = BoundedThreads("probes", threads=2, backlog=64)
        # The spool is read apart from the store, which may hang.
        self._spool_threads = BoundedThreads("spool-probes", threads=1, backlog=64)

    async def health(self, request: Request) -> Response:
        """The health document of what the caller may see; 503 when the fleet is down."""
        followers = self._hub.state()  # in the event loop, where it does not change
        scope = self._scope(request)
        try:
            async with asyncio.timeout(PROBE_S):
                document = await self._threads.run(
                    lambda: health.document(self._runtime, scope, followers=followers)
                )
        except (TimeoutError, FleetError) as error:
            reason = str(error) or "The broker does not answer in time."
            document = await self._spool_threads.run(
                lambda: health.down(reason, self._runtime, scope, followers=followers)
            )
        document["links"] = {"flower": self._flower if scope.whole else None}
        down = document["status"] == "down"
        status = HTTPStatus.SERVICE_UNAVAILABLE if down else HTTPStatus.OK
        return JSONResponse(document, int(status))

    def _scope(self, request: Request) -> HealthScope:
        """The part of the fleet that the caller may see."""
        rights, agents = rights_of(request.scope), self._runtime.settings.agents
        return HealthScope(tuple(filter(rights.reads, agents)), whole=rights.reads_all)

    async def livez(self, request: Request) -> Response:
        """200 while this process serves requests; nothing else is checked."""
        return JSONResponse({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        """200 only when the store or the spool would accept an event now.

        `wakeups` says why an accepted one would wait: its broker, which is not the store, is away.
        """
        fault = await self._fault(self._threads, self._write)
        spool = self._runtime.spool
        # The spool does not take what a store that has lost its data refuses.
        if fault and spool.enabled and not isinstance(fault, StoreLost):
            fault = await self._fault(self._spool_threads, spool.check_room)
        if fault:
            reason = str(fault) or "It does not answer in time."
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", reason, retry_after_s=RETRY_AFTER_S
            )
        waits = await self._wakeup_fault()
        return JSONResponse({"status": "ready", **({"wakeups": waits} if waits else {})})

    async def _wakeup_fault(self) -> str:
        with suppress(TimeoutError, FleetError):  # they say nothing of the broker
            async with asyncio.timeout(PROBE_S):
                return await self._threads.run(lambda: self._runtime.wakeup_fault)
        return ""

    async def _fault(
        self, threads: BoundedThreads, call: Callable[[], None]
    ) -> TimeoutError | FleetError | None:
        """The error of `call`, or None."""
        try:
            async with asyncio.timeout(PROBE_S):
                await threads.run(call)
        except (TimeoutError, FleetError) as error:
            return error
        return None

    async def metrics(self, request: Request) -> Response:
        """Metrics for Prometheus, of the agents that the caller may see.

        Figures of no agent are for those who may see all. While the store is down there are only
        those of this process, and `fleet_up` is 0.
        """
        scope = self._scope(request)
        followers = self._hub.state()
        spool_status = await self._spool_threads.run(lambda: health.spool_status(self._runtime))
        clients = Clients(
            following=followers["clients"],
            max_lag=followers["max_lag"],
            delivered=followers["delivered"],
            evicted=followers["evicted"],
            resyncs=sum(followers["resyncs"].values()),
            listening=self._live_text.listeners,
            breaker_open=spool_status["breaker"] != "closed",
            spooled=spool_status["spooled"],
        )
        reading = None
        with suppress(TimeoutError, FleetError):  # `fleet_up` reports it
            async with asyncio.timeout(PROBE_S):
                reading = await self._threads.run(
                    lambda: metrics.read(self._runtime.store, scope.agents)
                )
        accept = request.headers.get("accept", "")
        body, media_type = metrics.render(reading, clients, accept, whole=scope.whole)
        return Response(body, headers={"Content-Type": media_type})

    def _write(self) -> None:
        """Write a key: a store with a full disk or memory, or a replica, answers but rejects it."""
        with reachable():
            self._runtime.store.client.set(keys.READY, "1", px=_READY_KEY_MS)
        store_life.check_lost(self._runtime.store)
