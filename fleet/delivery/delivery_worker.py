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
#: Targets that beat checks in one tick.
BATCH = 200


def due(store: Store, settings: Settings) -> list[str]:
    """Dispatches whose delivery is due; a delivery past its deadline is given up.

    Raises BrokerUnavailable.
    """
    keep_ms = int(settings.retention.completed_s * 1000)
    # The upstream client finds its own deliveries; their deadlines hold without the client too.
    call = DeliverDueCall(
        limit=BATCH, again_ms="", queue_max=QUEUE_MAX, keep_ended_ms=keep_ms, target=UPSTREAM
    )
    store.run(call)
    call.again_ms, call.target = WAKEUP_RETRY_DELAY_MS, ""
    _, *found = store.run(call)
    return [str(dispatch_id) for dispatch_id in found]


class DeliveryWorker:
    """Delivers for one process. Raises BrokerUnavailable."""

    def __init__(self, store: Store, settings: Settings, intake: Callable[[], Intake]) -> None:
        """`intake` accepts the outcomes that go to agents."""
        self._store = store
        self._settings = settings
        self._intake = intake
        self._keep_ms = int(settings.retention.completed_s * 1000)

    def deliver(self, dispatch_id: str) -> None:
        """Try each open and due target of one outcome."""
        with reachable():
            fields: Any = self._store.client.hgetall(keys.delivery(dispatch_id))
        for field, state in fields.items():
            target, _, name = field.partition("|")
            if name == "state" and state == "open" and target != UPSTREAM:
                while self._try(dispatch_id, target):
                    pass

    def _try(self, dispatch_id: str, target: str) -> bool:
        """Make one attempt; True when the next is due now. Bounded: failures lengthen the delay."""
        receiver = self._settings.deliveries.get(target)
        window_s = receiver.window_s if receiver else 0.0
        pending = claim(self._store, dispatch_id, target, window_s, self._keep_ms)
        if pending is None:
            return False
        result = self._send(pending, receiver)
        # A receiver's answer is worth waiting for the store.
        wait_ms = retry_while_away(
            lambda: report(self._store, pending, result, self._keep_ms), LEASE_MARGIN_S
        )
        logger.info("outcome of %s to %s: %s", dispatch_id, target, result.reason)
        if wait_ms is None or wait_ms > WAIT_HERE_MS:
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
