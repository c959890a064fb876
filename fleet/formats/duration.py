"""Spans of time as people write them: `90s`, `30m`, `2h`, `1d`, `1h30m`."""

import re

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])")


def seconds(text: str) -> float:
    """The span in seconds. Raises ValueError with the rule."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("must be a span of time such as 90s, 30m, 2h, 1d or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
