"""The two ways from the gateway: the socket, and polling while that is down."""

import asyncio
import logging
import random
import time
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from fleet.errors import BrokerUnavailable
from fleet.system.backoff import Backoff
from fleet.upstream.cursor_store import CursorStore, Mode
from fleet.upstream.event_consumer import EventConsumer, parse
from fleet.upstream.gateway_address import GatewayAddress, after
from fleet.upstream.outcome_reporter import OutcomeReporter

logger = logging.getLogger(__name__)

#: Together less than 10 s: after so much silence the events come by polling.
PING_EVERY_S = 3.0
PONG_WITHIN_S = 4.0
CLOSE_WITHIN_S = 1.0
OPEN_WITHIN_S = 5.0
#: Between attempts to get the socket back.
BACKOFF = Backoff(1.0, 30.0, jitter=(0.0, 1.0))
#: A socket that lasted so long was no failed attempt.
STEADY_S = 10.0
POLL_EVERY_S = 2.0
POLL_WITHIN_S = 15.0
#: One frame or one answer to a poll. Larger than any event: that is refused by itself, and known.
BYTES_MAX = 16 * 1024 * 1024
TELL_EVERY_S = 5.0


class BadAnswer(Exception):
    """What the gateway answered to a poll is no list of events."""


class UpstreamClient:
    """Takes events until it is cancelled."""

    def __init__(
        self,
        gateway: GatewayAddress,
        taker: EventConsumer,
        desk: CursorStore,
        teller: OutcomeReporter,
    ) -> None:
        self._gateway = gateway
        self._taker = taker
        self._desk = desk
        self._teller = teller
        self._down = asyncio.Event()
        self._changed = asyncio.Event()
        self._mode: Mode | None = None
        self._told: dict[str, str] = {}

    async def run(self) -> None:
        """Raises Fenced, in a group, when another client has taken over."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_telling())
            tasks.create_task(self._teller.run())
            if self._gateway.ws is None:
                self._goes_by_poll()
            else:
                tasks.create_task(self._keep_listening(self._gateway.ws))
            if self._gateway.poll is not None:
                tasks.create_task(self._keep_polling(self._gateway.poll))

    async def _keep_listening(self, url: str) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._listen(url)
                why = "it closed the socket"
            except InvalidStatus as error:
                why = _status(error.response.status_code)
            except (OSError, UnicodeError, WebSocketException) as error:
                why = type(error).__name__
            self._goes_by_poll()
            self._tell("socket", why)
            failures = 0 if time.monotonic() - began > STEADY_S else failures + 1
            await asyncio.sleep(BACKOFF.after_s(failures))

    async def _listen(self, url: str) -> None:
        async with connect(
            after(url, self._taker.cursor),
            additional_headers=self._gateway.headers,
            open_timeout=OPEN_WITHIN_S,
            ping_interval=PING_EVERY_S,
            ping_timeout=PONG_WITHIN_S,
            close_timeout=CLOSE_WITHIN_S,
            max_size=BYTES_MAX,
        ) as socket:
            self._is("ws")
            self._down.clear()
            self._tell("socket", "")
            self._teller.connected(socket)
            try:
                async for frame in socket:
                    if not self._teller.hears(frame):
                        await self._taker.accept_frame(frame)
            finally:
                self._teller.connected(None)

    async def _keep_polling(self, url: str) -> None:
        async with httpx.AsyncClient(timeout=OPEN_WITHIN_S, headers=self._gateway.headers) as http:
            while True:
                await self._down.wait()
                try:
                    async with asyncio.timeout(POLL_WITHIN_S):
                        events = await _fetch(http, after(url, self._taker.cursor))
                except (httpx.HTTPError, OSError, UnicodeError, BadAnswer) as error:
                    self._tell("poll", str(error) if isinstance(error, BadAnswer) else _kind(error))
                else:
                    self._tell("poll", "")
                    for raw in events:
                        await self._taker.accept(raw)
                await asyncio.sleep(POLL_EVERY_S * random.uniform(0.75, 1.25))  # noqa: S311

    async def _keep_telling(self) -> None:
        """Keep the health document true. What it cannot write runs out by itself."""
        while True:
            self._changed.clear()
            try:
                await asyncio.to_thread(self._desk.record_mode, self._mode)
            except BrokerUnavailable as error:
                self._tell("store", str(error))
            else:
                self._tell("store", "")
            try:
                async with asyncio.timeout(TELL_EVERY_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _goes_by_poll(self) -> None:
        self._down.set()
        self._is("poll" if self._gateway.poll is not None else None)

    def _is(self, mode: Mode | None) -> None:
        if mode != self._mode:
            logger.info("events of %s come by %s", self._gateway.name, mode or "no way now")
            self._mode = mode
            self._changed.set()

    def _tell(self, way: str, why: str) -> None:
        """Say what does not work, once; never an address, which may hold a secret."""
        if why and why != self._told.get(way):
            logger.warning("%s: the %s does not work: %s", self._gateway.name, way, why)
        self._told[way] = why


async def _fetch(http: httpx.AsyncClient, url: str) -> list[Any]:
    """The events of one poll. Raises BadAnswer and what httpx does."""
    body = bytearray()
    async with http.stream("GET", url) as answer:
        if answer.status_code == httpx.codes.NO_CONTENT:
            return []
        if answer.status_code != httpx.codes.OK:
            raise BadAnswer(_status(answer.status_code))
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > BYTES_MAX:
                raise BadAnswer(f"it answered with more than {BYTES_MAX} bytes")
    try:
        found = parse(bytes(body))
    except ValueError:
        raise BadAnswer("its answer is not valid JSON") from None
    events = found.get("events") if isinstance(found, dict) else found
    if not isinstance(events, list):
        raise BadAnswer('its answer is neither a list of events nor {"events": [...]}')
    return events


def _status(code: int) -> str:
    hint = ": check upstream.token" if code in (401, 403) else ""
    return f"it answered HTTP {code}{hint}"


def _kind(error: Exception) -> str:
    return type(error).__name__
