"""Warnings about clients, each once in a while: a flood of clients is no flood of lines."""

import asyncio
import logging
import time
from typing import Any

#: Between two lines about the same kind of trouble.
LOG_INTERVAL_S = 60.0

logger = logging.getLogger(__name__)


class RepeatLimit(logging.Filter):
    """Lets each warning about clients through once in LOG_INTERVAL_S."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a warning that was logged lately."""
        if record.levelno != logging.WARNING:
            return True
        now = time.monotonic()
        if now - self._told.get(str(record.msg), float("-inf")) < LOG_INTERVAL_S:
            return False
        self._told[str(record.msg)] = now
        return True


def log_accept_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log that no connection can be accepted in one line; asyncio tries again after a second."""
    error = context.get("exception")
    if isinstance(error, OSError) and "accept" in str(context.get("message")):
        logger.warning("no connection can be accepted: %s", error.strerror)
    else:
        loop.default_exception_handler(context)
