"""Pauses between attempts, and calls that wait for the store."""

import pytest

from fleet.errors import BrokerUnavailable
from fleet.store.connection import retry_while_away
from fleet.system.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [Backoff(0.5, 3.0).after_s(failures) for failures in (0, 1, 2, 3, 4, 10**9)]
    assert pauses == [0.5, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_stays_within_its_bounds() -> None:
    backoff = Backoff(1.0, 4.0, jitter=(0.75, 1.25))
    assert all(3.0 <= backoff.after_s(9) <= 5.0 for _ in range(100))


def test_a_call_is_repeated_while_the_store_is_away() -> None:
    failures = [BrokerUnavailable("away"), BrokerUnavailable("away")]

    def call() -> int:
        if failures:
            raise failures.pop()
        return 7

    assert retry_while_away(call, timeout_s=60, delay_s=0) == 7


def test_a_store_that_stays_away_is_given_up() -> None:
    def call() -> None:
        raise BrokerUnavailable("away")

    with pytest.raises(BrokerUnavailable, match="away"):
        retry_while_away(call, timeout_s=0)
