"""Handing messages to the receiver: one at a time, never for long, and not while it has enough."""

import logging
import time
from collections import deque
from urllib.parse import urlsplit

import httpx

from fleet.formats import retry_after
from fleet.ops.alerts.message import AlertMessage, body
from fleet.system.backoff import Backoff

logger = logging.getLogger(__name__)

#: One request; a receiver that hangs holds up nothing but the next message.
SEND_TIMEOUT_S = 5.0
#: Discord takes 30 a minute for one webhook, Slack 60.
PER_MINUTE = 20
BACKOFF = Backoff(1.0, 60.0)
#: A receiver that asks for longer is tried again after this.
RETRY_DELAY_MAX_S = 600.0


class AlertSender:
    """The receiver as one process sees it. Used by one thread."""

    def __init__(self, url: str) -> None:
        """`url` is a secret; empty where alerts go to the bus alone."""
        self._url = url
        self._client = httpx.Client(timeout=SEND_TIMEOUT_S, follow_redirects=False)
        self._sent: deque[float] = deque(maxlen=PER_MINUTE)
        self._pause_until = 0.0
        self._failures = 0  #: in a row

    @property
    def wanted(self) -> bool:
        """False where there is no receiver."""
        return bool(self._url)

    @property
    def ready(self) -> bool:
        """False while the receiver is left alone: it failed, or had its share of this minute."""
        now = time.monotonic()
        crowded = len(self._sent) == PER_MINUTE and now - self._sent[0] < 60
        return now >= self._pause_until and not crowded

    def send(self, message: AlertMessage) -> bool:
        """True when it need not be sent again: the receiver took it, or never will."""
        self._sent.append(time.monotonic())
        try:
            # What it answers is not read: that could take for ever.
            with self._client.stream("POST", self._url, json=body(self._url, message)) as answer:
                status = answer.status_code
                asked_s = retry_after.seconds(answer.headers)
        except httpx.HTTPError as error:
            return self._failed(type(error).__name__)
        if 200 <= status < 300:
            self._failures = 0
            return True
        if status == httpx.codes.TOO_MANY_REQUESTS or status >= 500:
            return self._failed(f"HTTP {status}", asked_s)
        logger.error(
            "alerts: %s refuses a message with HTTP %d: check alerts.webhook",
            urlsplit(self._url).hostname,
            status,
        )
        return True

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def _failed(self, why: str, asked_s: float | None = None) -> bool:
        self._failures += 1
        if self._failures == 1:
            # Without the path: it is the receiver's secret.
            logger.warning(
                "alerts: %s does not take messages (%s); they wait",
                urlsplit(self._url).hostname,
                why,
            )
        backoff_s = BACKOFF.after_s(self._failures)
        pause_s = backoff_s if asked_s is None else min(asked_s, RETRY_DELAY_MAX_S)
        self._pause_until = time.monotonic() + pause_s
        return False
