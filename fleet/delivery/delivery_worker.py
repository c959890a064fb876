"""Takes outcomes from the ledger to their receivers, but for those that go back upstream."""

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
from fleet.store.connection import reachable
from fleet.store.retry import retry_while_away

logger = logging.getLogger(__name__)

#: The sender itself waits for the next try when it is not later than this; beat rings for others.
WAIT_HERE_MS = 500
#: Beat rings again for what nobody took.
WAKEUP_RETRY_DELAY_MS = 5_000
#: Messages in the queue, above which beat adds none.
QUEUE_MAX = 500
#: Targets that beat looks at in one tick.
BATCH = 200


def due(store: Store, settings: Settings) -> list[str]:
    """The dispatches to ring for; what nobody can deliver any more is given up.

    Raises BrokerUnavailable.
    """
    keep_ms = int(settings.retention.completed_s * 1000)
    # The upstream client finds its own; without one, deadlines hold all the same.
    store.run("deliver_due", BATCH, "", QUEUE_MAX, keep_ms, UPSTREAM)
    _, *found = store.run("deliver_due", BATCH, WAKEUP_RETRY_DELAY_MS, QUEUE_MAX, keep_ms, "")
    return [str(dispatch_id) for dispatch_id in found]


class DeliveryWorker:
    """Delivers for one process. Every call raises BrokerUnavailable."""

    def __init__(self, store: Store, settings: Settings, intake: Callable[[], Intake]) -> None:
        """`intake` is where what goes to an agent goes in."""
        self._store = store
        self._settings = settings
        self._intake = intake
        self._keep_ms = int(settings.retention.completed_s * 1000)

    def deliver(self, dispatch_id: str) -> None:
        """Try each target that is open and due."""
        with reachable():
            fields: Any = self._store.client.hgetall(keys.delivery(dispatch_id))
        for field, state in fields.items():
            target, _, name = field.partition("|")
            if name == "state" and state == "open" and target != UPSTREAM:
                while self._try(dispatch_id, target):
                    pass

    def _try(self, dispatch_id: str, target: str) -> bool:
        """True when it is to be tried again at once. Bounded: each failure's delay is longer."""
        receiver = self._settings.deliveries.get(target)
        window_s = receiver.window_s if receiver else 0.0
        told = claim(self._store, dispatch_id, target, window_s, self._keep_ms)
        if told is None:
            return False
        sample = self._sample(told, receiver)
        # A receiver's answer is worth waiting for the store.
        wait_ms = retry_while_away(
            lambda: report(self._store, told, sample, self._keep_ms), LEASE_MARGIN_S
        )
        logger.info("outcome of %s to %s: %s", dispatch_id, target, sample.reason)
        if wait_ms is None or wait_ms > WAIT_HERE_MS:
            return False
        time.sleep(wait_ms / 1000)
        return True

    def _sample(self, told: PendingDelivery, receiver: DeliveryConfig | None) -> AttemptResult:
        if receiver is None:
            # Another process of the fleet may still have, or get, the newer configuration.
            return AttemptResult(kind="failed", reason="this fleet has no deliveries of that name")
        if receiver.agent is not None:
            return deliver_to_agent(self._store, self._intake, told, receiver.agent)
        return send(receiver, told)


def send(receiver: DeliveryConfig, told: PendingDelivery) -> AttemptResult:
    """Post an outcome, signed. The body is the same at each try."""
    content = body(told)
    secret = receiver.secret.get_secret_value() if receiver.secret else ""
    headers = {
        "content-type": "application/json",
        "user-agent": "fleet",
        **webhook_signature.headers(secret, told.message_id, content),
    }
    return post(receiver, content, headers)
