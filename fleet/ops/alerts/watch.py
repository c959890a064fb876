"""The alerter: a thread that looks, tells, and sends, and that nothing else ever waits for."""

import json
import logging
import threading
from collections.abc import Callable

from fleet.config.settings import Settings
from fleet.errors import BrokerUnavailable
from fleet.ledger import bus
from fleet.ledger.maintenance import SILENCE_MS, periodic_lock
from fleet.ops.alerts.conditions import last_words, new_events
from fleet.ops.alerts.machine import Machine
from fleet.ops.alerts.message import AlertMessage
from fleet.ops.alerts.reading import conditions
from fleet.ops.alerts.sender import PER_MINUTE, AlertSender
from fleet.store import Store, keys
from fleet.store.connection import reachable

logger = logging.getLogger(__name__)

PERIOD_S = 3.0
#: A growing condition is told again after this.
RETRY_DELAY_MS = 300_000
OUTBOX_MAX = 200
#: Longer than a request takes, shorter than an operator's patience.
SENDING_MS = 20_000
#: An alert that could not be sent for so long helps nobody any more.
STALE_MS = 3_600_000


class Alerter:
    """Looks every few seconds. Any number may run in a fleet; what one has told no other tells.

    `first`: see `Machine`; for one process of a machine only.
    """

    def __init__(
        self, opened: Callable[[], Store], settings: Settings, *, first: bool = False
    ) -> None:
        webhook = settings.alerts.webhook
        self._opened = opened
        self._settings = settings
        self._sender = AlertSender(webhook.get_secret_value() if webhook else "")
        self._machine = Machine(settings, self._sender, first=first)
        self._stop = threading.Event()
        self._words: dict[str, str] = {}

    def start(self) -> None:
        """Begin, in a daemon thread."""
        threading.Thread(target=self._run, name="alerts", daemon=True).start()

    def close(self) -> None:
        """End within moments; what waits in the outbox is sent by the next one."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            try:
                self.round()
            except Exception:
                # An alerter that dies of one reading would be missed just when it is needed.
                logger.exception("alerts: this look failed; the next one follows")
        self._machine.close()
        self._sender.close()

    def round(self) -> None:
        """A look at the fleet, and one at this machine, which needs no store."""
        store, away = None, ""
        try:
            self.check()
            store = self._opened()
        except BrokerUnavailable as error:
            away = str(error)
        try:
            self._machine.check(store, away)
        except BrokerUnavailable:
            logger.debug("alerts: the store went away meanwhile; the next look tells")

    def check(self) -> None:
        """Compare the fleet with what was told of it, tell, send. Raises BrokerUnavailable."""
        store = self._opened()
        if periodic_lock(store, "alerts", PERIOD_S):
            self._compare(store)
        if self._sender.wanted:
            self._send_waiting(store)

    def _compare(self, store: Store) -> None:
        with reachable():
            cursor = store.client.get(keys.ALERTS_CURSOR)
        after = str(cursor or bus.last_id(store))
        entries = bus.read(store, after, count=1000)
        self._words.update(last_words(entries))
        found = conditions(store, self._settings, self._words)
        store.run(
            "alerts",
            json.dumps([condition.to_wire() for condition in found]),
            json.dumps(new_events(entries)),
            entries[-1].id if entries else after,
            RETRY_DELAY_MS,
            PER_MINUTE,
            OUTBOX_MAX,
            int(self._sender.wanted),
            SILENCE_MS,
        )

    def _send_waiting(self, store: Store) -> None:
        while not self._stop.is_set() and self._sender.ready:
            raw = store.run("alerts_outbox", "take", SENDING_MS, STALE_MS)
            if not raw:
                return
            message = AlertMessage.of(json.loads(raw))
            if self._sender.send(message):
                store.run("alerts_outbox", "done", message.id)
