"""Tells the gateway what became of its events: over its socket, else by POST to the polled address.

The same claims and reports as of any receiver's outcomes, so what a crash or another client cut
short is repeated under the same id, and what was confirmed never is.
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
from fleet.delivery.webhook import sample_of
from fleet.errors import BrokerUnavailable
from fleet.store import Store
from fleet.store.calls import DeliverDueCall
from fleet.upstream.event_consumer import parse
from fleet.upstream.gateway_address import GatewayAddress

logger = logging.getLogger(__name__)

#: Between looks for outcomes to tell.
POLL_INTERVAL_S = 0.5
#: On their way at the same time; a gateway that never confirms costs so many a window.
AT_ONCE = 32
#: An outcome that was taken and neither sent nor refused is looked at again.
RETRY_DELAY_MS = 5_000
#: A confirmation is no longer than this; what is longer need not be looked at.
ACK_CHARS_MAX = 512


class OutcomeReporter:
    """Of one holder of the client's lock."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        gateway: GatewayAddress,
        is_held_up: Callable[[], bool],
    ) -> None:
        """`is_held_up` is true while no frame is read, because an event cannot be handed over."""
        self._store = store
        self._gateway = gateway
        self._window_s = settings.upstream.window_s
        self._keep_ms = int(settings.retention.completed_s * 1000)
        self._is_held_up = is_held_up
        self._socket: ClientConnection | None = None
        self._waiting: dict[str, asyncio.Future[AttemptResult]] = {}
        self._said = ""

    def connected(self, socket: ClientConnection | None) -> None:
        """The socket to tell by from now on; None: there is none."""
        self._socket = socket
        if socket is None:
            lost = AttemptResult(
                kind="failed", reason="the socket was lost before it was confirmed"
            )
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_result(lost)

    def hears(self, frame: str | bytes) -> bool:
        """True for a frame that confirms an outcome, and so is no event."""
        if len(frame) > ACK_CHARS_MAX:
            return False
        try:
            said = parse(frame)
        except ValueError:
            return False
        if not isinstance(said, dict) or said.keys() != {"ack"}:
            return False
        # One that comes twice, or too late, changes nothing any more.
        waiting = self._waiting.get(str(said["ack"]))
        if waiting and not waiting.done():
            waiting.set_result(AttemptResult(kind="ack", reason="it was confirmed by a frame"))
        return True

    async def run(self) -> None:
        """Tell what is due, until it is cancelled."""
        async with httpx.AsyncClient(timeout=self._window_s, headers=self._gateway.headers) as http:
            while True:
                due: list[str] = []
                try:
                    if self._socket or self._gateway.poll:
                        due = await asyncio.to_thread(self._due)
                    tries = (self._tell(http, one) for one in due)
                    for failed in await asyncio.gather(*tries, return_exceptions=True):
                        if failed is not None:
                            raise failed
                    self._said = ""
                except BrokerUnavailable as error:
                    if self._said != str(error):
                        logger.warning("no outcome is told to %s: %s", self._gateway.name, error)
                    self._said = str(error)
                await asyncio.sleep(0 if len(due) == AT_ONCE else POLL_INTERVAL_S)

    def _due(self) -> list[str]:
        call = DeliverDueCall(
            limit=AT_ONCE,
            again_ms=RETRY_DELAY_MS,
            queue_max=0,
            keep_ended_ms=self._keep_ms,
            target=UPSTREAM,
        )
        _, *found = self._store.run(call)
        return [str(dispatch_id) for dispatch_id in found]

    async def _tell(self, http: httpx.AsyncClient, dispatch_id: str) -> None:
        took = (self._store, dispatch_id, UPSTREAM, self._window_s, self._keep_ms)
        told = await asyncio.to_thread(claim, *took)
        if told is None:
            return
        sample = await self._sample(http, told)
        await self._report(told, sample)
        logger.info("outcome of %s to %s: %s", dispatch_id, self._gateway.name, sample.reason)

    async def _report(self, told: PendingDelivery, sample: AttemptResult) -> None:
        """What the gateway said is worth waiting for the store."""
        patience = time.monotonic() + LEASE_MARGIN_S
        while True:
            try:
                await asyncio.to_thread(report, self._store, told, sample, self._keep_ms)
            except BrokerUnavailable:
                if time.monotonic() > patience:
                    raise
                await asyncio.sleep(POLL_INTERVAL_S)
            else:
                return

    async def _sample(self, http: httpx.AsyncClient, told: PendingDelivery) -> AttemptResult:
        text = json.dumps(cloud_event(told), ensure_ascii=False)
        if self._socket and not (self._is_held_up() and self._gateway.poll):
            return await self._by_socket(self._socket, told.message_id, text)
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
        """What was said within the window; longer while nothing that is said can be heard."""
        sent = time.monotonic()
        while True:
            done, _ = await asyncio.wait((waiting,), timeout=self._window_s)
            if done:
                return waiting.result()
            if not self._is_held_up() or time.monotonic() - sent > LEASE_MARGIN_S:
                break
        why = f"not confirmed within {self._window_s:g} s (window_s)"
        return AttemptResult(kind="unverified", reason=why)

    async def _by_post(self, http: httpx.AsyncClient, url: str, text: str) -> AttemptResult:
        headers = {"content-type": "application/cloudevents+json"}
        try:
            async with asyncio.timeout(self._window_s):
                answer = await http.post(url, content=text.encode(), headers=headers)
        except (httpx.ReadTimeout, TimeoutError):
            return AttemptResult(
                kind="unverified", reason=f"no answer within {self._window_s:g} s (window_s)"
            )
        except (httpx.HTTPError, OSError, UnicodeError) as error:
            return AttemptResult(
                kind="failed", reason=f"it cannot be reached ({type(error).__name__})"
            )
        return sample_of(answer.status_code, answer.headers)
