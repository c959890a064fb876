"""A moment as a person writes it."""

import pytest

from fleet.formats.since import parse_since

NOW_MS = 1_772_822_677_000.0


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259_200)]
)
def test_how_long_ago(text: str, seconds: int) -> None:
    assert parse_since(text, NOW_MS) == NOW_MS - seconds * 1000


@pytest.mark.parametrize(
    "text", ["2026-03-06T18:44:37Z", "2026-03-06T19:44:37+01:00", "2026-03-06 18:44:37"]
)
def test_a_time_is_in_utc_unless_it_says_otherwise(text: str) -> None:
    assert parse_since(text, 0) == NOW_MS


@pytest.mark.parametrize("text", ["", "soon", "2 h", "-1h", "1y", "2026-13-01"])
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="write how long ago, as 90s, 15m, 2h or 3d, or a time"):
        parse_since(text, NOW_MS)
