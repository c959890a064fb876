"""Sending alerts to the receiver: one at a time, briefly, and within its rate limit."""

import logging
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fleet.formats import retry_after
from fleet.ops.alerts.message import AlertMessage, body
from fleet.system.backoff import Backoff
from fleet.system.outgoing import UnusableVariable, client_options

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

#: Time limit of a request; a receiver that hangs delays only the next message.
SEND_TIMEOUT_S = 5.0
#: Discord accepts 30 a minute for one webhook, Slack 60.
PER_MINUTE = 20
BACKOFF = Backoff(1.0, 60.0)
#: The longest accepted `Retry-After`.
RETRY_DELAY_MAX_S = 600.0


class AlertSender:
    """The sender of one process. Used by one thread."""

    def __init__(self, url: str) -> None:
        """`url` is a secret; empty where alerts go to the bus alone."""
        self._url = url
        self._client: httpx.Client | None = None
        self._sent: deque[float] = deque(maxlen=PER_MINUTE)
        self._pause_until = 0.0
        self._failures = 0  #: in a row

    @property
    def enabled(self) -> bool:
        """False without a receiver."""
        return bool(self._url)

    @property
    def ready(self) -> bool:
        """False during a back-off, and while the minute's rate limit is used up."""
        now = time.monotonic()
        at_limit = len(self._sent) == PER_MINUTE and now - self._sent[0] < 60
        return now >= self._pause_until and not at_limit

    def send(self, message: AlertMessage) -> bool:
        """Send a message; False when it must be sent again."""
        import httpx  # slow to load, and many fleets have no receiver

        self._sent.append(time.monotonic())
        try:
            self._client = self._client or httpx.Client(
                timeout=SEND_TIMEOUT_S, **client_options(self._url)
            )
            # The body is not read: it might never end.
            with self._client.stream("POST", self._url, json=body(self._url, message)) as answer:
                status = answer.status_code
                requested_s = retry_after.seconds(answer.headers)
        except UnusableVariable as error:
            return self._failed(str(error))
        except httpx.HTTPError as error:
            return self._failed(type(error).__name__)
        if 200 <= status < 300:
            self._failures = 0
            return True
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
            return self._failed(f"HTTP {status}", requested_s)
        logger.error(
            "alerts: %s refuses a message with HTTP %d: check alerts.webhook",
            urlsplit(self._url).hostname,
            status,
        )
        return True

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()

    def _failed(self, reason: str, requested_s: float | None = None) -> bool:
        self._failures += 1
        if self._failures == 1:
            # Without the path, which is the receiver's secret.
            logger.warning(
                "alerts: %s does not take messages (%s); they wait",
                urlsplit(self._url).hostname,
                reason,
            )
        backoff_s = BACKOFF.after_s(self._failures)
        pause_s = backoff_s if requested_s is None else min(requested_s, RETRY_DELAY_MAX_S)
        self._pause_until = time.monotonic() + pause_s
        return False
