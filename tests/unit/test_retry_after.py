"""`Retry-After` as servers write it, well and badly."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from fleet.formats import retry_after


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        *(("30", 30.0), ("0", 0.0), ("1.5", 1.5), (" 7 ", 7.0), ("-3", 0.0), ("1e9", 1e9)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),
        *((said, None) for said in ("", "soon", "nan", "inf", "1e999", "-inf", "Wed, 99 Oct 2015")),
    ],
)
def test_numbers_and_dates(said: str, wait_s: float | None) -> None:
    assert retry_after.seconds({"retry-after": said}) == wait_s


def test_a_date_to_come() -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < (retry_after.seconds({"Retry-After": until}) or 0) <= 90
    assert 80 < (retry_after.seconds(httpx.Headers({"RETRY-AFTER": until})) or 0) <= 90


def test_silence() -> None:
    assert retry_after.seconds({}) is None
