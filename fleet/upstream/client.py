"""The two connections to the gateway: a WebSocket, and polling while the WebSocket is down."""

import asyncio
import logging
import random
import time
from contextlib import suppress
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from fleet.errors import BrokerUnavailable
from fleet.formats import strict_json
from fleet.system.backoff import Backoff
from fleet.system.outgoing import UnusableVariable, proxy_for
from fleet.upstream.cursor_store import CursorStore, Mode
from fleet.upstream.event_consumer import EventConsumer
from fleet.upstream.gateway_address import GatewayAddress, after
from fleet.upstream.outcome_reporter import OutcomeReporter

logger = logging.getLogger(__name__)

#: Together less than 10 s: after such a silence the client falls back to polling.
PING_INTERVAL_S = 3.0
PONG_TIMEOUT_S = 4.0
CLOSE_TIMEOUT_S = 1.0
OPEN_TIMEOUT_S = 5.0
#: Full jitter between attempts to reconnect.
BACKOFF = Backoff(1.0, 30.0, jitter=(0.0, 1.0))
#: A socket that lasted this long resets the back-off.
STEADY_S = 10.0
POLL_INTERVAL_S = 2.0
#: An open socket that brings no event for so long is polled beside, because it may be deaf. It is
#: polled again after as long; after `POLL_INTERVAL_S` once a poll brought what the socket did not.
SILENT_S = 10.0
POLL_TIMEOUT_S = 15.0
#: The largest frame, or answer to a poll. Larger than any event, so a large event is still read,
#: and refused by its id.
BYTES_MAX = 16 * 1024 * 1024
MODE_INTERVAL_S = 5.0


class BadAnswer(Exception):
    """The gateway's answer to a poll is not a list of events."""


class UpstreamClient:
    """A client that takes events until it is cancelled."""

    def __init__(
        self,
        gateway: GatewayAddress,
        consumer: EventConsumer,
        cursors: CursorStore,
        reporter: OutcomeReporter,
    ) -> None:
        self._gateway = gateway
        self._consumer = consumer
        self._cursors = cursors
        self._reporter = reporter
        self._down = asyncio.Event()
        self._changed = asyncio.Event()
        #: Monotonic; when the socket brought its last event, or a poll beside it brought none.
        self._quiet_since = time.monotonic()
        self._mode: Mode | None = None
        self._logged: dict[str, str] = {}

    async def run(self) -> None:
        """Take events. Raises Fenced, in a group, when another client has taken over."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_reporting_mode())
            tasks.create_task(self._reporter.run())
            if self._gateway.ws is None:
                self._fall_back_to_poll()
            else:
                tasks.create_task(self._keep_socket(self._gateway.ws))
            if self._gateway.poll is not None:
                tasks.create_task(self._keep_polling(self._gateway.poll))

    async def _keep_socket(self, url: str) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._read_socket(url)
                reason = "it closed the socket"
            except InvalidStatus as error:
                reason = _status(error.response.status_code)
            except (OSError, UnicodeError, WebSocketException) as error:
                reason = _kind(error)
            self._fall_back_to_poll()
            self._log_failure("socket", reason)
            failures = 0 if time.monotonic() - began > STEADY_S else failures + 1
            await asyncio.sleep(BACKOFF.after_s(failures))

    async def _read_socket(self, url: str) -> None:
        async with connect(
            after(url, self._consumer.cursor),
            additional_headers=self._gateway.headers,
            proxy=proxy_for(url, "python_socks"),
            open_timeout=OPEN_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PONG_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=BYTES_MAX,
        ) as socket:
            self._set_mode("ws")
            self._quiet_since = time.monotonic()
            self._down.clear()
            self._log_failure("socket", "")
            self._reporter.connected(socket)
            try:
                async for frame in socket:
                    if not self._reporter.confirms(frame):
                        self._quiet_since = time.monotonic()
                        self._set_mode("ws")
                        await self._consumer.accept_frame(frame)
            finally:
                self._reporter.connected(None)

    async def _keep_polling(self, url: str) -> None:
        async with self._gateway.client(OPEN_TIMEOUT_S) as http:
            while True:
                await self._poll_is_due()
                cursor, quiet_since = self._consumer.cursor, self._quiet_since
                try:
                    async with asyncio.timeout(POLL_TIMEOUT_S):
                        events = await _fetch(http, after(url, self._consumer.cursor))
                except (httpx.HTTPError, OSError, UnicodeError, BadAnswer) as error:
                    self._log_failure(
                        "poll", str(error) if isinstance(error, BadAnswer) else _kind(error)
                    )
                else:
                    self._log_failure("poll", "")
                    # A socket that is not deaf after all has brought the same.
                    if self._down.is_set() or self._quiet_since == quiet_since:
                        for raw in events:
                            await self._consumer.accept(raw)
                self._note_poll(cursor, quiet_since)
                await asyncio.sleep(POLL_INTERVAL_S * random.uniform(0.75, 1.25))  # noqa: S311

    async def _poll_is_due(self) -> None:
        """Return while there is no socket, and when it has brought nothing for `SILENT_S`."""
        while not self._down.is_set():
            left_s = self._quiet_since + SILENT_S - time.monotonic()
            if left_s <= 0:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._down.wait(), left_s)

    def _note_poll(self, cursor: str, quiet_since: float) -> None:
        """Go on polling beside an open socket where the poll alone brought something new."""
        if self._down.is_set() or self._quiet_since != quiet_since:
            return
        if self._consumer.cursor != cursor:
            self._set_mode("poll")
        else:
            self._quiet_since = time.monotonic()

    async def _keep_reporting_mode(self) -> None:
        """Keep the mode in the health document current; an unrenewed mode expires."""
        while True:
            self._changed.clear()
            try:
                await asyncio.to_thread(self._cursors.record_mode, self._mode)
            except BrokerUnavailable as error:
                self._log_failure("store", str(error))
            else:
                self._log_failure("store", "")
            try:
                async with asyncio.timeout(MODE_INTERVAL_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _fall_back_to_poll(self) -> None:
        self._down.set()
        self._set_mode("poll" if self._gateway.poll is not None else None)

    def _set_mode(self, mode: Mode | None) -> None:
        if mode != self._mode:
            logger.info("events of %s come by %s", self._gateway.name, mode or "no way now")
            self._mode = mode
            self._changed.set()

    def _log_failure(self, way: str, reason: str) -> None:
        """Log a failure once; never an address, which may hold a secret."""
        if reason and reason != self._logged.get(way):
            logger.warning("%s: the %s does not work: %s", self._gateway.name, way, reason)
        self._logged[way] = reason


async def _fetch(http: httpx.AsyncClient, url: str) -> list[Any]:
    """Fetch the events of one poll. Raises BadAnswer and the errors of httpx."""
    body = bytearray()
    async with http.stream("GET", url) as answer:
        if answer.status_code == httpx.codes.NO_CONTENT:
            return []
        if answer.status_code != httpx.codes.OK:
            raise BadAnswer(_status(answer.status_code))
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > BYTES_MAX:
                raise BadAnswer(f"it answered with more than {BYTES_MAX} bytes")
    try:
        found = strict_json.parse_marked(bytes(body))
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
    return str(error) if isinstance(error, UnusableVariable) else type(error).__name__
