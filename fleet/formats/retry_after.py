"""The one reader of `Retry-After`."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds from now, from a number or from a date; None where absent or unreadable.

    Finite and never negative, but chosen by the other side: bound it where it is used.
    """
    value = next((text for name, text in headers.items() if name.lower() == "retry-after"), "")
    try:
        wait_s = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
            # `-0000` is a time in UTC of unknown origin.
            wait_s = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, wait_s) if math.isfinite(wait_s) else None
