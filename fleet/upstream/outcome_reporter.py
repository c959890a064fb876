"""Reports outcomes to the gateway: over its socket, otherwise by POST to the polled address.

It claims and reports deliveries as for any receiver: a delivery that a crash cut short is repeated
under the same id, and a confirmed delivery never is.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable

import httpx
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from fleet.config.deliveries import UPSTREAM
from fleet.config.settings import Settings
from fleet.delivery.claims import LEASE_MARGIN_S, AttemptResult, PendingDelivery, claim, report
from fleet.delivery.message import cloud_event
from fleet.delivery.webhook import result_of
from fleet.errors import BrokerUnavailable
from fleet.formats import strict_json
from fleet.store import Store
from fleet.store.calls import DeliverDueCall
from fleet.system.outgoing import UnusableVariable
from fleet.upstream.gateway_address import GatewayAddress

logger = logging.getLogger(__name__)

#: Between queries for due outcomes.
POLL_INTERVAL_S = 0.5
#: Deliveries under way at once; a gateway that never confirms delays so many in each window.
CONCURRENCY_MAX = 32
#: A due outcome that was neither sent nor refused is due again after this.
RETRY_DELAY_MS = 5_000
#: The longest confirmation; a longer frame is an event.
ACK_CHARS_MAX = 512


class OutcomeReporter:
    """The reporter of one holder of the client's lock."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        gateway: GatewayAddress,
        is_blocked: Callable[[], bool],
    ) -> None:
        """`is_blocked` is true while no frame is read, because an event cannot be delivered."""
        self._store = store
        self._gateway = gateway
        self._window_s = settings.upstream.window_s
        self._keep_ms = int(settings.retention.completed_s * 1000)
        self._is_blocked = is_blocked
        self._socket: ClientConnection | None = None
        self._waiting: dict[str, asyncio.Future[AttemptResult]] = {}
        self._logged = ""

    def connected(self, socket: ClientConnection | None) -> None:
        """Report over this socket from now on; None: the socket is down."""
        self._socket = socket
        if socket is None:
            lost = AttemptResult(
                kind="failed", reason="the socket was lost before it was confirmed"
            )
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_result(lost)

    def confirms(self, frame: str | bytes) -> bool:
        """True for a frame that confirms an outcome instead of bringing an event."""
        if len(frame) > ACK_CHARS_MAX:
            return False
        try:
            frame_content = strict_json.parse(frame)
        except ValueError:
            return False
        if not isinstance(frame_content, dict) or frame_content.keys() != {"ack"}:
            return False
        # A repeated or late confirmation changes nothing.
        waiting = self._waiting.get(str(frame_content["ack"]))
        if waiting and not waiting.done():
            waiting.set_result(AttemptResult(kind="ack", reason="it was confirmed by a frame"))
        return True

    async def run(self) -> None:
        """Deliver due outcomes until it is cancelled."""
        async with self._gateway.client(self._window_s) as http:
            while True:
                due: list[str] = []
                try:
                    if self._socket or self._gateway.poll:
                        due = await asyncio.to_thread(self._due)
                    deliveries = (self._deliver(http, dispatch_id) for dispatch_id in due)
                    for failed in await asyncio.gather(*deliveries, return_exceptions=True):
                        if failed is not None:
                            raise failed
                    self._logged = ""
                except BrokerUnavailable as error:
                    if self._logged != str(error):
                        logger.warning("no outcome is sent to %s: %s", self._gateway.name, error)
                    self._logged = str(error)
                await asyncio.sleep(0 if len(due) == CONCURRENCY_MAX else POLL_INTERVAL_S)

    def _due(self) -> list[str]:
        call = DeliverDueCall(
            limit=CONCURRENCY_MAX,
            again_ms=RETRY_DELAY_MS,
            queue_max=0,
            keep_ended_ms=self._keep_ms,
            target=UPSTREAM,
        )
        _, *found = self._store.run(call)
        return [str(place).partition(" ")[0] for place in found]

    async def _deliver(self, http: httpx.AsyncClient, dispatch_id: str) -> None:
        terms = (self._store, dispatch_id, UPSTREAM, self._window_s, self._keep_ms)
        delivery = await asyncio.to_thread(claim, *terms)
        if delivery is None:
            return
        result = await self._attempt(http, delivery)
        await self._report(delivery, result)
        logger.info("outcome of %s to %s: %s", dispatch_id, self._gateway.name, result.reason)

    async def _report(self, delivery: PendingDelivery, result: AttemptResult) -> None:
        """Report a result; wait for the store as long as the claim holds."""
        deadline = time.monotonic() + LEASE_MARGIN_S
        while True:
            try:
                await asyncio.to_thread(report, self._store, delivery, result, self._keep_ms)
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(POLL_INTERVAL_S)
            else:
                return

    async def _attempt(self, http: httpx.AsyncClient, delivery: PendingDelivery) -> AttemptResult:
        text = json.dumps(cloud_event(delivery), ensure_ascii=False)
        if self._socket and not (self._is_blocked() and self._gateway.poll):
            return await self._by_socket(self._socket, delivery.message_id, text)
        if self._gateway.poll:
            return await self._by_post(http, self._gateway.poll, text)
        return AttemptResult(kind="failed", reason="there is no socket")

    async def _by_socket(
        self, socket: ClientConnection, message_id: str, text: str
    ) -> AttemptResult:
        self._waiting[message_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._window_s):
                await socket.send(text)
        except (ConnectionClosed, TimeoutError) as error:
            self._waiting.pop(message_id)
            return AttemptResult(
                kind="failed", reason=f"it could not be sent ({type(error).__name__})"
            )
        try:
            return await self._confirmed(self._waiting[message_id])
        finally:
            self._waiting.pop(message_id)

    async def _confirmed(self, waiting: "asyncio.Future[AttemptResult]") -> AttemptResult:
        """The confirmation within the window, or longer while no frame is read."""
        sent = time.monotonic()
        while True:
            done, _ = await asyncio.wait((waiting,), timeout=self._window_s)
            if done:
                return waiting.result()
            if not self._is_blocked() or time.monotonic() - sent > LEASE_MARGIN_S:
                break
        reason = f"not confirmed within {self._window_s:g} s (window_s)"
        return AttemptResult(kind="unverified", reason=reason)

    async def _by_post(self, http: httpx.AsyncClient, url: str, text: str) -> AttemptResult:
        headers = {"content-type": "application/cloudevents+json"}
        try:
            async with asyncio.timeout(self._window_s):
                answer = await http.post(url, content=text.encode(), headers=headers)
        except (httpx.ReadTimeout, TimeoutError):
            return AttemptResult(
                kind="unverified", reason=f"no answer within {self._window_s:g} s (window_s)"
            )
        except UnusableVariable as error:
            return AttemptResult(kind="failed", reason=str(error))
        except (httpx.HTTPError, OSError, UnicodeError) as error:
            return AttemptResult(
                kind="failed", reason=f"it cannot be reached ({type(error).__name__})"
            )
        return result_of(answer.status_code, answer.headers)
