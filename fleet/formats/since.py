"""A moment as a person writes it: RFC 3339, or how long ago, such as `90s`, `15m`, `2h` or `3d`."""

from contextlib import suppress
from datetime import UTC, datetime

from fleet.formats.duration import seconds


def parse_since(text: str, now_ms: float) -> float:
    """The moment in milliseconds since 1970; one without a zone is in UTC. Raises ValueError."""
    with suppress(ValueError):
        return now_ms - seconds(text) * 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"{text[:40]!r} is not a moment: write how long ago, as 90s, 15m, 2h or 3d, or a time, "
            "as 2026-11-21T10:00:00Z."
        ) from error
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return zoned.timestamp() * 1000
