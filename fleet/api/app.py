"""The HTTP API as an ASGI application: its routes, and the life of its shared parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from fleet.api.auth.access import Access
from fleet.api.auth.middleware import AccessMiddleware
from fleet.api.bus.entries import BusEntries
from fleet.api.bus.hub import Hub
from fleet.api.bus.routes import BusRoutes
from fleet.api.live.hub import LiveTextHub
from fleet.api.live.routes import LiveTextRoute
from fleet.api.mcp.transport import McpRoute
from fleet.api.openapi.document import document
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.problems import HANDLERS
from fleet.api.request.response_headers import ResponseHeaders
from fleet.api.routes.agents import Agents
from fleet.api.routes.alerts import AlertRoutes
from fleet.api.routes.backlog import Backlog
from fleet.api.routes.callbacks import Callbacks
from fleet.api.routes.chains import Chains
from fleet.api.routes.console import CONSOLE, EXPLORER
from fleet.api.routes.dead_letters import DeadLetters
from fleet.api.routes.dispatches import Dispatches
from fleet.api.routes.dry_run import DryRun
from fleet.api.routes.event_status import EventStatus
from fleet.api.routes.events import EventsRoute
from fleet.api.routes.overview import Overview
from fleet.api.routes.resend import Resend
from fleet.api.routes.status import Status
from fleet.api.routes.tokens import Tokens
from fleet.config.listen_address import others_can_reach
from fleet.ops.alerts.watch import Alerter
from fleet.runtime import Runtime

#: Threads for reads of the ledger, which mostly wait for the store, and the reads that may wait.
READERS = 4
READS_WAITING_MAX = 1024


def create_api(runtime: Runtime, *, host: str | None = None) -> Starlette:
    """The application on one runtime, which spools. Raises ConfigError.

    `host` overrides the configured listen address. Where others can reach the address, every
    request needs a token. For an orderly shutdown close `state.hub` and `state.live_text`, and call
    `state.mcp.begin_shutdown`.
    """
    settings = runtime.settings
    host = host or settings.api.host
    closed = not settings.api.trusted_network and others_can_reach(host)
    reads = BoundedThreads("reads", READERS, READS_WAITING_MAX)
    access = Access(
        lambda: runtime.unguarded_store, closed=closed, rate_per_s=settings.api.token_rate_per_s
    )
    hub = Hub(lambda: runtime.unguarded_store, reads, settings.bus.client_queue, access)
    live_text = LiveTextHub(lambda: runtime.store, access)
    mcp = McpRoute(runtime)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        hub.start()
        # Load the tokens now: without them nobody could send while the broker is away.
        await access.refresh()
        runtime.drainer.start()
        alerter = Alerter(lambda: runtime.store, settings, first=True)
        alerter.start()
        try:
            yield
        finally:
            alerter.close()
            runtime.drainer.close()
            hub.close()
            live_text.close()
            await mcp.close()

    app = _Api(
        routes=[*_routes(runtime, reads, hub, live_text, access), *_mcp_routes(mcp)],
        middleware=[Middleware(AccessMiddleware, names=settings.api.names | {host}, access=access)],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect is not a problem document
    app.state.hub = hub
    app.state.live_text = live_text
    app.state.mcp = mcp
    return app


def _mcp_routes(mcp: McpRoute) -> list[BaseRoute]:
    """The route, and the same with a slash, as many clients have it: they follow no redirect."""
    paths = {"/mcp": True, "/mcp/": False}
    return [
        Route(path, mcp, methods=["POST"], include_in_schema=described)
        for path, described in paths.items()
    ]


def _routes(
    runtime: Runtime, reads: BoundedThreads, hub: Hub, live_text: LiveTextHub, access: Access
) -> list[BaseRoute]:
    agents = Agents(runtime, reads)
    alerts = AlertRoutes(runtime, reads)
    dispatches = Dispatches(runtime, reads)
    status = Status(runtime, hub, live_text)
    overview = Overview(runtime, reads)
    stream = BusRoutes(hub, runtime.settings)
    dispatch = "/dispatches/{dispatch_id}"
    return [
        Route("/events/{event_id:path}", EventStatus(runtime, reads).get),
        Route("/events", EventsRoute(runtime.intake, access), methods=["POST"]),
        Route("/tickets", access.issue_ticket, methods=["POST"]),
        Route("/dispatches", dispatches.find),
        Route(dispatch, dispatches.get),
        Route(f"{dispatch}/cancel", dispatches.cancel, methods=["POST"]),
        Route(f"{dispatch}/retry", dispatches.retry, methods=["POST"]),
        Route(f"{dispatch}/approve", dispatches.approve, methods=["POST"]),
        Route(f"{dispatch}/reject", dispatches.reject, methods=["POST"]),
        Route(f"{dispatch}/stream", LiveTextRoute(runtime, reads, live_text), methods=["GET"]),
        Route("/callbacks/{dispatch_id}", Callbacks(runtime, reads).accept, methods=["POST"]),
        Route("/agents", agents.find),
        Route("/agents/{agent}", agents.get),
        Route("/agents/{agent}/config", agents.config),
        Route("/agents/{agent}/pause", agents.pause, methods=["POST"]),
        Route("/agents/{agent}/resume", agents.resume, methods=["POST"]),
        Route("/agents/{agent}/drain", agents.drain, methods=["POST"]),
        Route("/alerts", alerts.find),
        Route("/alerts/{alert}/silence", alerts.silence, methods=["POST"]),
        Route("/alerts/{alert}/unsilence", alerts.unsilence, methods=["POST"]),
        Route("/alerts/{alert}/ack", alerts.ack, methods=["POST"]),
        *_operator_routes(runtime, reads),
        Route("/sessions", overview.sessions),
        Route("/targets", overview.targets),
        Route("/history", overview.history),
        Route("/bus", _Asgi(stream.sse), methods=["GET"]),
        WebSocketRoute("/ws", _Asgi(stream.ws)),
        Route("/health", status.health),
        Route("/metrics", status.metrics),
        Route("/livez", status.livez),
        Route("/readyz", status.readyz),
        Route("/openapi.json", _openapi),
        Route("/docs", EXPLORER.index),
        Route("/docs/{file}", EXPLORER.file),
        Route("/", CONSOLE.index),
        Route("/console/{file}", CONSOLE.file),
    ]


def _operator_routes(runtime: Runtime, reads: BoundedThreads) -> list[BaseRoute]:
    """The routes that a command line on another machine needs beside those of programs."""
    backlog, tokens = Backlog(runtime, reads), Tokens(runtime, reads)
    return [
        Route("/route", DryRun(runtime).plan, methods=["POST"]),
        Route("/chains/{chain_id}", Chains(runtime, reads).get, methods=["GET"]),
        Route("/agents/{agent}/cancel", backlog.cancel, methods=["POST"]),
        Route("/agents/{agent}/move", backlog.move, methods=["POST"]),
        Route("/dispatches/{dispatch_id}/resend", Resend(runtime, reads).accept, methods=["POST"]),
        Route("/dead-letters/replay", DeadLetters(runtime, reads).replay, methods=["POST"]),
        Route("/dead-letters/purge", backlog.purge, methods=["POST"]),
        Route("/bus/entries", BusEntries(runtime, reads).find, methods=["GET"]),
        Route("/tokens", tokens.all, methods=["GET", "POST"]),
        Route("/tokens/{which:path}", tokens.revoke, methods=["DELETE"]),
    ]


class _Api(Starlette):
    """The application with headers on every response, also on that of a fault."""

    def build_middleware_stack(self) -> ASGIApp:
        """The application within its middleware."""
        return ResponseHeaders(super().build_middleware_stack())


class _Asgi:
    """Mark a method as an ASGI application; Starlette takes a bare method for a request handler."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _openapi(request: Request) -> Response:
    return JSONResponse(document())
