"""The alerter: a thread that checks, reports and sends, and that nothing else waits for."""

import json
import logging
import threading
from collections.abc import Callable

from fleet.config.settings import Settings
from fleet.errors import BrokerUnavailable
from fleet.ledger import bus, store_life
from fleet.ledger.maintenance import periodic_lock
from fleet.ops.alerts.conditions import new_events
from fleet.ops.alerts.machine import PAST_MAX, MachineAlerts
from fleet.ops.alerts.message import AlertMessage
from fleet.ops.alerts.reading import conditions
from fleet.ops.alerts.sender import PER_MINUTE, AlertSender
from fleet.ops.alerts.silences import silenced
from fleet.store import Store, keys
from fleet.store.alert_calls import AlertsCall, AlertsOutboxCall
from fleet.store.connection import reachable
from fleet.store.wakeup import publisher_of

logger = logging.getLogger(__name__)

PERIOD_S = 3.0
#: A growing condition is reported again after this.
RETRY_DELAY_MS = 300_000
OUTBOX_MAX = 200
#: Conditions from before such a silence of all alerters count as new.
SILENCE_MS = 15_000
#: How long one alerter owns an alert while it sends; longer than a request takes.
SEND_LEASE_MS = 20_000
#: An alert that could not be sent for this long is dropped.
STALE_MS = 3_600_000


class Alerter:
    """A check every few seconds. Any number may run in a fleet; each alert is reported once.

    `first`: see `MachineAlerts`; for one process of a machine only.
    """

    def __init__(
        self, get_store: Callable[[], Store], settings: Settings, *, first: bool = False
    ) -> None:
        webhook = settings.alerts.webhook
        self._get_store = get_store
        self._settings = settings
        self._sender = AlertSender(webhook.get_secret_value() if webhook else "")
        self._machine = MachineAlerts(settings, self._sender, first=first)
        self._wakeups = publisher_of(settings)
        self._stop = threading.Event()

    def start(self) -> None:
        """Start a daemon thread."""
        threading.Thread(target=self._run, name="alerts", daemon=True).start()

    def close(self) -> None:
        """Stop, without waiting for the thread; another alerter sends the rest of the outbox."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.round()
            except Exception:
                # The loop must survive every fault: alerts matter most in trouble.
                logger.exception("alerts: this check failed; the next check follows")
            self._stop.wait(PERIOD_S)
        self._machine.close()
        self._sender.close()

    def round(self) -> None:
        """Check the fleet, and this machine, which needs no store."""
        store, away = None, ""
        try:
            self.check()
            store = self._get_store()
        except BrokerUnavailable as error:
            away = str(error)
        try:
            self._machine.check(store, away)
        except BrokerUnavailable:
            logger.debug("alerts: the store went down; the next check reports it")

    def check(self) -> None:
        """Report changed conditions of the fleet, and send alerts. Raises BrokerUnavailable."""
        store = self._get_store()
        store_life.look(store, self._settings)
        # Known then while the store is away.
        self._machine.silenced = silenced(store)
        if periodic_lock(store, "alerts", PERIOD_S):
            self._compare(store)
        if self._sender.enabled:
            self._send_waiting(store)

    def _compare(self, store: Store) -> None:
        with reachable():
            cursor = store.client.get(keys.ALERTS_CURSOR)
        after = str(cursor or bus.last_id(store))
        entries = bus.read(store, after, count=1000)
        found = conditions(store, self._settings, self._wakeups)
        call = AlertsCall(
            conditions=json.dumps([condition.to_wire() for condition in found]),
            news=json.dumps(new_events(entries)),
            cursor=entries[-1].id if entries else after,
            again_ms=RETRY_DELAY_MS,
            per_minute=PER_MINUTE,
            outbox_max=OUTBOX_MAX,
            sends=1 if self._sender.enabled else 0,
            silence_ms=SILENCE_MS,
            past_max=PAST_MAX,
        )
        store.run(call)

    def _send_waiting(self, store: Store) -> None:
        while not self._stop.is_set() and self._sender.ready:
            call = AlertsOutboxCall(verb="take", sending_ms=SEND_LEASE_MS, stale_ms=STALE_MS)
            raw = store.run(call)
            if not raw:
                return
            message = AlertMessage.of(json.loads(str(raw)))
            if self._sender.send(message):
                store.run(AlertsOutboxCall(verb="done", message_id=message.id))
