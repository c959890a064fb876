"""Takes an announced outcome from the ledger to its receivers.

What a receiver has confirmed is in the ledger in the same step, so it is never sent again; a try
that was cut short is repeated under the same `webhook-id`, by which a receiver knows it.
"""

import json
import logging
import time
import uuid
from typing import Any

from fleet import keys, signature
from fleet.delivery.section import Delivery
from fleet.delivery.webhook import Sample, post
from fleet.ledger import views
from fleet.settings import Settings
from fleet.store import Store
from fleet.store.connection import reachable

logger = logging.getLogger(__name__)

#: A sender has a target for so long after three windows (connecting, sending, waiting): a look-up
#: of a name takes its time too.
LEASE_MARGIN_S = 20.0
#: The sender itself waits for the next try when it is not later than this; beat rings for others.
WAIT_HERE_MS = 500
#: Beat rings again for what nobody took.
RING_AGAIN_MS = 5_000
#: Messages in the queue, above which beat adds none.
QUEUE_MAX = 500
#: Targets that beat looks at in one tick.
BATCH = 200


class Courier:
    """Delivers for one process. Every call raises BrokerUnavailable."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._keep_ms = int(settings.retention.completed_s * 1000)

    def due(self) -> list[str]:
        """The dispatches to ring for; what nobody can deliver any more is given up."""
        _, *found = self._store.run("deliver_due", BATCH, RING_AGAIN_MS, QUEUE_MAX, self._keep_ms)
        return [str(dispatch_id) for dispatch_id in found]

    def deliver(self, dispatch_id: str) -> None:
        """Try each target that is open and due."""
        with reachable():
            fields: Any = self._store.client.hgetall(keys.delivery(dispatch_id))
        for field, state in fields.items():
            target, _, name = field.partition("|")
            if name == "state" and state == "open":
                while self._try(dispatch_id, target):
                    pass

    def _try(self, dispatch_id: str, target: str) -> bool:
        """True when it is to be tried again at once. Bounded: each failure's delay is longer."""
        call = uuid.uuid4().hex
        receiver = self._settings.deliveries.get(target)
        lease_s = LEASE_MARGIN_S + 3 * (receiver.window_s if receiver else 0.0)
        answer = self._store.run(
            "deliver_claim", dispatch_id, target, call, int(lease_s * 1000), self._keep_ms
        )
        if answer[0] != "claimed":
            return False
        flat = answer[1]
        record = dict(zip(flat[::2], flat[1::2], strict=True))
        if receiver is None:
            # Another process of the fleet may still have, or get, the newer configuration.
            sample = Sample(kind="failed", reason="this fleet has no deliveries of that name")
        else:
            sample = send(receiver, target, record, answer[2])
        verdict, *rest = self._store.run(
            "deliver_end", dispatch_id, target, call, sample.kind, sample.reason, self._keep_ms
        )
        logger.info("outcome of %s to %s: %s", dispatch_id, target, sample.reason)
        if verdict != "again" or int(rest[0]) > WAIT_HERE_MS:
            return False
        time.sleep(int(rest[0]) / 1000)
        return True


def send(receiver: Delivery, target: str, record: dict[str, str], answer: str) -> Sample:
    """Post an outcome, signed. The body is the same at each try."""
    content = body(record, answer)
    secret = receiver.secret.get_secret_value()
    message_id = f"{record['id']}.{record['generation']}.{target}"
    headers = {
        "content-type": "application/json",
        "user-agent": "fleet",
        **signature.headers(secret, message_id, content),
    }
    return post(receiver, content, headers)


def body(record: dict[str, str], answer: str) -> bytes:
    """What a receiver is posted: the form that Standard Webhooks recommends."""
    data = {
        "dispatch_id": record["id"],
        "event_id": record["event_id"],
        "agent": record["agent"],
        "session": record.get("session") or None,
        "attempt": int(record["attempt"]),
        "generation": int(record["generation"]),
        "state": "completed",
        "answer": answer,
    }
    time_ = views.rfc3339(float(record["announced_ms"]))
    message = {"type": "dispatch_completed", "timestamp": time_, "data": data}
    return json.dumps(message, ensure_ascii=False).encode()
