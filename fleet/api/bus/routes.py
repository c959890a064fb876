"""`GET /bus` as server-sent events and `WS /ws`: two wire forms of one follower."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.types import Message, Receive, Scope, Send

from fleet.api.auth.access import caller_of, rights_of
from fleet.api.bus.follower import Follower, Wanted
from fleet.api.bus.hub import Hub
from fleet.api.request.parameters import choices, texts
from fleet.api.request.problems import Problem, as_problem
from fleet.config.settings import Settings
from fleet.errors import Forbidden
from fleet.ledger import bus

#: Below the idle limits of common proxies (nginx: 60 s), and often enough to notice a dead peer.
HEARTBEAT_S = 15.0
#: A browser comes back after so long, by chance, so that a thousand do not come at once.
RETRY_MS = (500, 3000)

SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]
#: WebSocket close codes (RFC 6455 and its registry).
TRY_AGAIN_LATER, SERVICE_RESTART, POLICY_VIOLATION = 1013, 1012, 1008

_log = logging.getLogger(__name__)


class Evicted(Exception):
    """The client took nothing for too long."""


class BusRoutes:
    """The ASGI applications that follow the bus."""

    def __init__(self, hub: Hub, settings: Settings) -> None:
        self._hub = hub
        self._agents = settings.agents
        self._tries = settings.bus.evict_after_failures
        #: One try to hand over bytes; several in a row that fail mean that nobody reads.
        self._send_s = settings.bus.send_timeout_s

    async def sse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follow the bus as server-sent events."""
        query = QueryParams(scope["query_string"])
        wanted = self._wanted(query, scope)
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
            await send({"type": "http.response.body"})
            return
        # A browser that reconnects keeps the URL and adds the header: the header is newer.
        cursor = Headers(scope=scope).get("last-event-id") or query.get("last-event-id")
        follower = await self._follow(cursor or None, wanted, scope)

        async def pump() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
            retry_ms = random.randint(*RETRY_MS)  # noqa: S311 - only spreads them
            greeting = f"retry: {retry_ms}\n: after {follower.position or 'the broker is back'}\n\n"
            await self._send(send, {"body": greeting.encode(), "more_body": True})
            while (batch := await follower.next(HEARTBEAT_S)) is not None:
                body = b"".join(entry.sse for entry in batch) or b": still here\n\n"
                await self._send(send, {"body": body, "more_body": True})

        await self._run(pump, follower, receive, "http.disconnect")
        if not (follower.gone or follower.evicted):
            with suppress(Evicted):
                await self._send(send, {"body": b""})

    async def ws(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follow the bus as WebSocket text messages, one for each entry."""
        query = QueryParams(scope["query_string"])
        await receive()
        try:
            wanted = self._wanted(query, scope)
        except (Problem, Forbidden) as problem:
            await as_problem(problem).to_response()(scope, receive, send)
            return
        cursor = query.get("last-event-id") or None
        follower = await self._follow(cursor, wanted, scope)

        async def pump() -> None:
            await send({"type": "websocket.accept"})
            while (batch := await follower.next(HEARTBEAT_S)) is not None:
                for entry in batch:
                    await self._send(send, {"text": entry.text}, "websocket.send")

        await self._run(pump, follower, receive, "websocket.disconnect")
        if not follower.gone:
            code, reason = _farewell(follower)
            # To one that reads nothing the code may not get through; the connection ends anyway.
            with suppress(Evicted):
                tries = 1 if follower.evicted else self._tries
                message = {"code": code, "reason": reason}
                await self._send(send, message, "websocket.close", tries)

    async def _follow(self, cursor: str | None, wanted: Wanted, scope: Scope) -> Follower:
        host, port = scope.get("client") or ("unknown", 0)
        return await self._hub.follow(cursor, wanted, caller_of(scope), f"{host}:{port}")

    async def _run(
        self,
        pump: Callable[[], Coroutine[Any, Any, None]],
        follower: Follower,
        receive: Receive,
        end: str,
    ) -> None:
        """Serve one client until it leaves, is cut off or is dismissed: then in mid-send, too."""
        pumping = asyncio.create_task(pump())
        follower.on_dismissal = pumping.cancel
        watcher = asyncio.create_task(_watch(receive, follower, end))
        try:
            if follower.dismissed:
                pumping.cancel()
            await pumping
        except Evicted:
            follower.evicted = True
            self._hub.evicted += 1
            _log.warning(
                "Bus client %s is cut off, %d events behind: it reads nothing.",
                follower.name,
                follower.lag,
            )
        except asyncio.CancelledError:
            if not follower.dismissed:
                raise
        finally:
            self._hub.leave(follower)
            watcher.cancel()

    def _wanted(self, query: QueryParams, scope: Scope) -> Wanted:
        """What the client asks for, within what it may see: on replay and live alike."""
        rights = rights_of(scope)
        agents = choices(query, "agent", self._agents)
        for agent in agents:
            rights.need_read(agent)
        if not rights.reads_all and not agents:
            agents = rights.readable(self._agents)
            if not agents:
                rights.need_read("*")
        return Wanted(
            agents=agents,
            types=choices(query, "type", bus.TYPES),
            sessions=texts(query, "session"),
        )

    async def _send(
        self,
        send: Send,
        message: Mapping[str, Any],
        kind: str = "http.response.body",
        tries: int | None = None,
    ) -> None:
        """Hand a message over; the server takes it whole or, with its buffer full, not at all."""
        whole: Message = {"type": kind, **message}
        for _ in range(tries or self._tries):
            try:
                async with asyncio.timeout(self._send_s):
                    await send(whole)
                    return
            except TimeoutError:
                continue
        raise Evicted


async def _watch(receive: Receive, follower: Follower, end: str) -> None:
    """Let the follower know at once when its client hangs up; what a client says is not for us."""
    while (await receive())["type"] != end:
        pass
    follower.gone = True
    follower.wake.set()


def _farewell(follower: Follower) -> tuple[int, str]:
    """The close code and its reason."""
    if follower.dismissed:
        return POLICY_VIOLATION, "the token was revoked, or is needed now"
    if follower.evicted:
        return TRY_AGAIN_LATER, "nothing was read for too long"
    return SERVICE_RESTART, "the API ends; come back with the last event id"
