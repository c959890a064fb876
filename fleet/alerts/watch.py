"""The alerter: a thread that looks, tells, and sends, and that nothing else ever waits for."""

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx

from fleet import bus, keys, retry_after
from fleet.alerts.conditions import current, last_words, news
from fleet.alerts.message import Message, body
from fleet.budget import Standing, of_today
from fleet.errors import BrokerUnavailable
from fleet.ledger import views
from fleet.maintenance import my_turn
from fleet.settings import Settings
from fleet.store import Store
from fleet.store.connection import reachable

logger = logging.getLogger(__name__)

PERIOD_S = 3.0
#: A growing condition is told again after this.
AGAIN_MS = 300_000
#: Discord takes 30 a minute for one webhook, Slack 60.
PER_MINUTE = 20
OUTBOX_MAX = 200
#: One request; a receiver that hangs holds up nothing but the next message.
SEND_TIMEOUT_S = 5.0
#: Longer than a request takes, shorter than an operator's patience.
SENDING_MS = 20_000
#: An alert that could not be sent for so long helps nobody any more.
STALE_MS = 3_600_000
BACKOFF_MAX_S = 60.0
#: A receiver that asks for longer is tried again after this.
PAUSE_MAX_S = 600.0
#: How long the store must be silent before that is told: a restart takes less.
OUTAGE_AFTER_S = 5.0


class Alerter:
    """Looks every few seconds. Any number may run in a fleet; what one has told no other tells.

    `tells_outage` for one process only: that the store is away cannot be agreed on through it.
    """

    def __init__(
        self, opened: Callable[[], Store], settings: Settings, *, tells_outage: bool = False
    ) -> None:
        webhook = settings.alerts.webhook
        self._opened = opened
        self._settings = settings
        self._url = webhook.get_secret_value() if webhook else ""
        self._tells_outage = tells_outage
        self._stop = threading.Event()
        self._client = httpx.Client(timeout=SEND_TIMEOUT_S, follow_redirects=False)
        self._away_since: float | None = None
        self._outage_told = False
        self._pause_until = 0.0
        self._backoff_s = 1.0
        self._reachable = True
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
                self.look()
            except BrokerUnavailable as error:
                self._store_away(str(error))
                continue
            except Exception:
                # An alerter that dies of one reading would be missed just when it is needed.
                logger.exception("alerts: this look failed; the next one follows")
                continue
            self._store_back()
        self._client.close()

    def look(self) -> None:
        """One round: compare, tell, send. Raises BrokerUnavailable."""
        store = self._opened()
        if my_turn(store, "alerts", PERIOD_S):
            self._compare(store)
        if self._url:
            self._send_waiting(store)

    def _compare(self, store: Store) -> None:
        names = list(self._settings.agents)
        with reachable():
            pipe = store.client.pipeline(transaction=False)
            pipe.get(keys.ALERTS_CURSOR)
            pipe.hgetall(keys.BEAT)
            pipe.exists(keys.PRESSURE)
            pipe.time()
            cursor, ticks, pressed, (seconds, micros) = pipe.execute()
        after = cursor or bus.last_id(store)
        entries = bus.read(store, after, count=1000)
        self._words.update(last_words(entries))
        newest = max((float(tick) for tick in ticks.values()), default=None)
        now = seconds + micros / 1e6
        found = current(
            views.counts(store, names),
            views.agents(store, names),
            None if newest is None else now - newest,
            self._words,
            pressed=bool(pressed),
            budgets=self._budgets(store),
        )
        store.run(
            "alerts",
            json.dumps([condition.to_wire() for condition in found]),
            json.dumps(news(entries)),
            entries[-1].id if entries else after,
            *(AGAIN_MS, PER_MINUTE, OUTBOX_MAX, int(bool(self._url))),
        )

    def _budgets(self, store: Store) -> dict[str, Standing]:
        agents = self._settings.agents
        found = {
            name: of_today(agents[name].budget, row)
            for name, row in views.spend(store, list(agents)).items()
        }
        return {name: standing for name, standing in found.items() if standing}

    def _send_waiting(self, store: Store) -> None:
        while not self._stop.is_set() and time.monotonic() >= self._pause_until:
            raw = store.run("alerts_outbox", "take", SENDING_MS, STALE_MS)
            if not raw:
                return
            message = Message.of(json.loads(raw))
            if self._send(message):
                store.run("alerts_outbox", "done", message.id)

    def _send(self, message: Message) -> bool:
        """True when it need not be sent again: the receiver took it, or never will."""
        try:
            answer = self._client.post(self._url, json=body(self._url, message))
        except httpx.HTTPError as error:
            return self._failed(type(error).__name__, self._backoff_s)
        if answer.is_success:
            self._reachable, self._backoff_s = True, 1.0
            return True
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
            return self._failed(f"HTTP {answer.status_code}", _pause_s(answer, self._backoff_s))
        logger.error(
            "alerts: %s refuses a message with HTTP %d: check alerts.webhook",
            *(urlsplit(self._url).hostname, answer.status_code),
        )
        return True

    def _failed(self, why: str, pause_s: float) -> bool:
        if self._reachable:
            # Without the path: it is the receiver's secret.
            logger.warning(
                "alerts: %s does not take messages (%s); they wait",
                urlsplit(self._url).hostname,
                why,
            )
        self._reachable = False
        self._pause_until = time.monotonic() + pause_s
        self._backoff_s = min(self._backoff_s * 2, BACKOFF_MAX_S)
        return False

    def _store_away(self, why: str) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        away = now - self._away_since > OUTAGE_AFTER_S
        if self._tells_outage and self._url and away and not self._outage_told:
            self._outage_told = self._send_outage(why, "open")

    def _store_back(self) -> None:
        self._away_since = None
        if self._outage_told:
            self._outage_told = not self._send_outage("it answers again", "closed")

    def _send_outage(self, why: str, state: str) -> bool:
        at_ms = int(datetime.now(UTC).timestamp() * 1000)
        return self._send(
            Message(id=f"{at_ms}-0", name="store_away", reason=why, state=state, at_ms=at_ms)
        )


def _pause_s(answer: httpx.Response, otherwise_s: float) -> float:
    wait_s = retry_after.seconds(answer.headers)
    return otherwise_s if wait_s is None else min(wait_s, PAUSE_MAX_S)
