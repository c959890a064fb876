"""`GET /bus` as server-sent events and `WS /ws`: two wire forms of one follower."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.types import Message, Receive, Scope, Send

from fleet.api.auth.access import caller_of, rights_of
from fleet.api.bus.follower import Follower
from fleet.api.bus.frames import writer_of
from fleet.api.bus.hub import Hub
from fleet.api.bus.view import BusFilter
from fleet.api.request.parameters import check_names, choices, readable_choices, texts
from fleet.api.request.problems import Problem, as_problem
from fleet.config.settings import Settings
from fleet.errors import Forbidden
from fleet.ledger import bus

#: Below the idle limits of common proxies (nginx: 60 s), and often enough to notice a dead peer.
HEARTBEAT_S = 15.0
#: Reconnect delay of a browser, drawn at random: a thousand do not come back at once.
RETRY_MS = (500, 3000)

SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would buffer events
]
#: WebSocket close codes (RFC 6455 and its registry).
TRY_AGAIN_LATER, SERVICE_RESTART, POLICY_VIOLATION = 1013, 1012, 1008

_log = logging.getLogger(__name__)


class Evicted(Exception):
    """The client has read nothing for too long."""


class BusRoutes:
    """The ASGI applications that follow the bus."""

    def __init__(self, hub: Hub, settings: Settings) -> None:
        self._hub = hub
        self._agents = settings.agents
        self._attempts = settings.bus.evict_after_failures
        #: Time limit of one attempt to send; several failures in a row mean that nobody reads.
        self._send_s = settings.bus.send_timeout_s

    async def sse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follow the bus as server-sent events."""
        query = QueryParams(scope["query_string"])
        bus_filter = self._filter(query, scope)
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
            await send({"type": "http.response.body"})
            return
        # A browser that reconnects keeps the URL and adds the header: the header is newer.
        cursor = Headers(scope=scope).get("last-event-id") or query.get("last-event-id")
        follower = await self._follow(cursor or None, bus_filter, scope)

        async def pump() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
            retry_ms = random.randint(*RETRY_MS)  # noqa: S311 - only spreads them
            greeting = f"retry: {retry_ms}\n: after {follower.position or 'the broker is back'}\n\n"
            await self._send(send, {"body": greeting.encode(), "more_body": True})
            while (batch := await follower.next(HEARTBEAT_S)) is not None:
                body = batch.sse or b": still here\n\n"
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
            bus_filter = self._filter(query, scope)
        except (Problem, Forbidden) as problem:
            await as_problem(problem).to_response()(scope, receive, send)
            return
        cursor = query.get("last-event-id") or None
        follower = await self._follow(cursor, bus_filter, scope)

        async def pump() -> None:
            await send({"type": "websocket.accept"})
            follower.writer = writer = writer_of(scope)
            while (batch := await follower.next()) is not None:
                if writer is None:
                    for entry in batch.entries:
                        await self._send(send, {"text": entry.text}, "websocket.send")
                    continue
                for frames in batch.frames:
                    await self._attempt(writer.drain)
                    writer.write(frames)

        await self._run(pump, follower, receive, "websocket.disconnect")
        if not follower.gone:
            code, reason = _close_reason(follower)
            # A client that reads nothing may not get the code; the connection ends anyway.
            with suppress(Evicted):
                attempts = 1 if follower.evicted else self._attempts
                message = {"code": code, "reason": reason}
                await self._send(send, message, "websocket.close", attempts)

    async def _follow(self, cursor: str | None, bus_filter: BusFilter, scope: Scope) -> Follower:
        host, port = scope.get("client") or ("unknown", 0)
        return await self._hub.follow(cursor, bus_filter, caller_of(scope), f"{host}:{port}")

    async def _run(
        self,
        pump: Callable[[], Coroutine[Any, Any, None]],
        follower: Follower,
        receive: Receive,
        end: str,
    ) -> None:
        """Serve one client until it leaves, is evicted or, even in mid-send, is dismissed."""
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

    def _filter(self, query: QueryParams, scope: Scope) -> BusFilter:
        check_names(query, "agent", "type", "session", "last-event-id")
        return filter_of(query, scope, self._agents)

    async def _send(
        self,
        send: Send,
        message: Mapping[str, Any],
        kind: str = "http.response.body",
        attempts: int | None = None,
    ) -> None:
        """Send a message; while its buffer is full, the server takes nothing. Raises Evicted."""
        framed: Message = {"type": kind, **message}
        await self._attempt(lambda: send(framed), attempts)

    async def _attempt(
        self, step: Callable[[], Awaitable[None]], attempts: int | None = None
    ) -> None:
        """Try a step of sending until it ends in time. Raises Evicted."""
        for _ in range(attempts or self._attempts):
            try:
                async with asyncio.timeout(self._send_s):
                    await step()
                    return
            except TimeoutError:
                continue
        raise Evicted


def filter_of(query: QueryParams, scope: Scope, known: Iterable[str]) -> BusFilter:
    """A client's filter within its rights, for stored, replayed and live entries alike."""
    rights, known = rights_of(scope), list(known)
    agents = readable_choices(query, "agent", known, rights)
    if not rights.reads_all and not agents:
        agents = rights.readable(known)
        if not agents:
            rights.need_read("*")
    return BusFilter(
        agents=agents,
        types=choices(query, "type", bus.TYPES),
        sessions=texts(query, "session"),
    )


async def _watch(receive: Receive, follower: Follower, end: str) -> None:
    """Notify the follower when its client hangs up; messages of the client are ignored."""
    while (await receive())["type"] != end:
        pass
    follower.gone = True
    follower.wake.set()


def _close_reason(follower: Follower) -> tuple[int, str]:
    """The WebSocket close code and its reason."""
    if follower.dismissed:
        return POLICY_VIOLATION, "the token was revoked, or is needed now"
    if follower.evicted:
        return TRY_AGAIN_LATER, "nothing was read for too long"
    return SERVICE_RESTART, "the API ends; come back with the last event id"
