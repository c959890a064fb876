"""Delivers outcomes from the ledger to their receivers, except the upstream gateway."""

import logging
import time
from collections.abc import Callable
from typing import Any

from fleet.config.deliveries import UPSTREAM, DeliveryConfig
from fleet.config.settings import Settings
from fleet.delivery.agent_delivery import deliver_to_agent
from fleet.delivery.claims import LEASE_MARGIN_S, AttemptResult, PendingDelivery, claim, report
from fleet.delivery.message import body
from fleet.delivery.webhook import post
from fleet.formats import webhook_signature
from fleet.intake.intake import Intake
from fleet.store import Store, keys
from fleet.store.calls import DeliverDueCall
from fleet.store.connection import reachable, retry_while_away

logger = logging.getLogger(__name__)

#: This process itself waits for an attempt due within this time; beat requests later ones.
WAIT_HERE_MS = 500
#: Beat requests again a delivery that no process has claimed.
WAKEUP_RETRY_DELAY_MS = 5_000
#: Messages in the queue above which beat adds none.
QUEUE_MAX = 500
#: Deliveries that beat requests, and deadlines that it checks, in one tick.
BATCH = 200


#: Requests an attempt, by another sender: the delivery's name and the target.
RequestDelivery = Callable[[str, str], None]


def due(store: Store, settings: Settings, target: str = "", limit: int = BATCH) -> list[list[str]]:
    """Deliveries that are due, as names with targets; one past its deadline is given up.

    For one `target` no deadline is checked. Raises BrokerUnavailable.
    """
    call = DeliverDueCall(
        limit=limit,
        again_ms=WAKEUP_RETRY_DELAY_MS,
        queue_max=QUEUE_MAX,
        keep_ended_ms=int(settings.retention.completed_s * 1000),
        target=target,
    )
    _, *found = store.run(call)
    return [str(place).split() for place in found]


class DeliveryWorker:
    """Delivers for one process. Raises BrokerUnavailable."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        intake: Callable[[], Intake],
        request: RequestDelivery = lambda _name, _target: None,
    ) -> None:
        """`intake` accepts the outcomes that go to agents; without `request` only beat requests."""
        self._store = store
        self._settings = settings
        self._intake = intake
        self._request = request
        self._keep_ms = int(settings.retention.completed_s * 1000)

    def deliver(self, name: str, target: str = "") -> None:
        """Try one open and due target of an outcome, and request the others.

        No receiver waits for another: each has an attempt of its own.
        """
        first, *others = [target] if target else self._open(name) or [""]
        for other in others:
            self._request(name, other)
        while first and self._try(name, first):
            pass

    def _open(self, name: str) -> list[str]:
        with reachable():
            fields: Any = self._store.client.hgetall(keys.delivery(name))
        found = (field.partition("|")[::2] for field, state in fields.items() if state == "open")
        return [target for target, what in found if what == "state" and target != UPSTREAM]

    def _try(self, name: str, target: str) -> bool:
        """Make one attempt; True when the next is due now. Bounded: failures lengthen the delay."""
        receiver = self._settings.deliveries.get(target)
        window_s = receiver.window_s if receiver else 0.0
        pending = claim(self._store, name, target, window_s, self._keep_ms)
        if pending is None:
            return False
        result = self._send(pending, receiver)
        # A receiver's answer is worth waiting for the store.
        wait_ms = retry_while_away(
            lambda: report(self._store, pending, result, self._keep_ms), LEASE_MARGIN_S
        )
        logger.info("outcome of %s to %s: %s", name, target, result.reason)
        if wait_ms is None or wait_ms > WAIT_HERE_MS:
            # The receiver has room for one more of those that waited for it.
            for following in due(self._store, self._settings, target, 1):
                self._request(*following)
            return False
        time.sleep(wait_ms / 1000)
        return True

    def _send(self, pending: PendingDelivery, receiver: DeliveryConfig | None) -> AttemptResult:
        if receiver is None:
            # Another process of the fleet may still have, or get, the newer configuration.
            return AttemptResult(kind="failed", reason="this fleet has no deliveries of that name")
        if receiver.agent is not None:
            return deliver_to_agent(self._store, self._intake, pending, receiver.agent)
        return send(receiver, pending)


def send(receiver: DeliveryConfig, pending: PendingDelivery) -> AttemptResult:
    """Post an outcome, signed. The body is the same in each attempt."""
    content = body(pending)
    secret = receiver.secret.get_secret_value() if receiver.secret else ""
    headers = {
        "content-type": "application/json",
        "user-agent": "fleet",
        **webhook_signature.headers(secret, pending.message_id, content),
    }
    return post(receiver, content, headers)
