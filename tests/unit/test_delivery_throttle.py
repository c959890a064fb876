"""The throttle of system 003, sample by sample."""

from fleet.delivery.throttle import AttemptKind, Throttle

FAILED: list[AttemptKind] = ["failed"]
UNVERIFIED: list[AttemptKind] = ["unverified"]
ACK: list[AttemptKind] = ["ack"]


def after(*samples: AttemptKind) -> list[tuple[int, int, int]]:
    """(delay, failures, streak) after each."""
    throttle, seen = Throttle(), []
    for sample in samples:
        throttle = throttle.after(sample)
        seen.append((throttle.delay_ms, throttle.failures, throttle.streak))
    return seen


def test_it_begins_with_the_least_delay() -> None:
    assert Throttle() == Throttle(delay_ms=100, failures=0, streak=0)


def test_each_failure_makes_it_longer_up_to_the_cap() -> None:
    delays = [100, 200, 500, 1000, 2000, 5000, 5000, 5000]
    assert after(*FAILED * 8) == [(ms, n, 0) for n, ms in enumerate(delays, start=1)]


def test_unverified_leaves_delay_and_failures_as_they_are() -> None:
    assert after(*FAILED * 3, *UNVERIFIED * 10)[-1] == (500, 3, 0)


def test_unverified_breaks_a_streak_and_success_forgets_failures() -> None:
    assert after(*FAILED * 3, *ACK * 2, *UNVERIFIED, *ACK * 2)[3:] == [
        *((500, 0, 1), (500, 0, 2), (500, 0, 0)),
        *((500, 0, 1), (500, 0, 2)),
    ]


def test_each_third_success_in_a_row_halves_it_down_to_the_least() -> None:
    seen = after(*FAILED * 3, *ACK * 12)[3:]
    assert [delay for delay, _, _ in seen] == [500, 500, 250, 250, 250, 125, 125, 125, *[100] * 4]
    assert {failures for _, failures, _ in seen} == {0}


def test_the_first_failure_after_a_success_begins_at_the_least_again() -> None:
    assert after(*FAILED * 3, *ACK, *FAILED)[-1] == (100, 1, 0)
