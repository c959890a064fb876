"""The breaker's rule: when it opens, who may ask, when it closes."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet.broker.circuit import PROBE_S, WINDOW_S, Circuit, begin_probe, end_probe, record_failure
from fleet.config.sections import BreakerConfig

LIMITS = BreakerConfig(failure_threshold=3, reset_timeout_s=30)


def opened(now: float = 0.0, *, refusal: str = "") -> Circuit:
    state = Circuit()
    for _ in range(LIMITS.failure_threshold):
        state = record_failure(state, now, LIMITS, "TimeoutError", refusal=refusal)
    return state


@given(st.lists(st.floats(0, 40), min_size=1, max_size=30))
def test_it_opens_at_the_first_failure_that_makes_enough_within_a_minute(gaps: list[float]) -> None:
    state, now, times = Circuit(), 0.0, list[float]()
    for gap in gaps:
        now += gap
        times.append(now)
        state = record_failure(state, now, LIMITS, "TimeoutError")
        enough = len([at for at in times if now - at < WINDOW_S]) >= LIMITS.failure_threshold
        assert state.open is enough
        if enough:
            assert state.since == now
            return


def test_a_refused_password_opens_it_at_once() -> None:
    state = record_failure(
        Circuit(), 5.0, LIMITS, "AuthenticationError", refusal="The password is wrong."
    )
    assert state.open
    assert state.cause == "AuthenticationError"


def test_the_wait_doubles_up_to_its_limit_and_begins_anew() -> None:
    state, now, waits = opened(), 0.0, list[float]()
    for _ in range(6):
        waits.append(state.probe_at - now)
        now = state.probe_at
        asking = begin_probe(state, now)
        assert asking is not None
        state = end_probe(asking, now, well=False)
    assert waits == [30, 60, 120, 240, 300, 300]
    asking = begin_probe(state, state.probe_at)
    assert asking is not None
    assert end_probe(asking, state.probe_at, well=True) == Circuit()


def test_a_wait_beyond_the_limit_is_the_operators_and_stays() -> None:
    state = record_failure(
        Circuit(), 0.0, BreakerConfig(failure_threshold=1, reset_timeout_s=1000), "TimeoutError"
    )
    assert end_probe(state, 1000.0, well=False).wait_s == 1000


def test_a_broker_that_was_heard_is_asked_at_once_unless_the_password_is_in_question() -> None:
    assert begin_probe(opened(), 1.0) is None
    assert begin_probe(opened(), 1.0, writable=True) is not None
    assert begin_probe(opened(refusal="No."), 1.0, writable=True) is None


def test_a_prober_that_died_is_not_waited_for_for_ever() -> None:
    asking = begin_probe(opened(), 30.0)
    assert asking is not None
    assert asking.name(30.0) == "half_open"
    assert begin_probe(asking, 30.0 + PROBE_S - 1, writable=True) is None
    assert begin_probe(asking, 30.0 + PROBE_S) is not None


class Crowd(RuleBasedStateMachine):
    """Several callers on one breaker, whose clock only goes forward."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.state = 0.0, Circuit()
        self.asking: list[float] = []  #: until when each who got the right is waited for

    @rule(seconds=st.floats(0.01, 400))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(refusal=st.sampled_from(("", "No.")))
    def a_call_fails(self, refusal: str) -> None:
        before = self.state
        self.state = record_failure(before, self.now, LIMITS, "TimeoutError", refusal=refusal)
        if before.open:
            assert self.state == before, "a late failure changes nothing"

    @rule(writable=st.booleans())
    def somebody_wants_to_ask(self, writable: bool) -> None:
        asking = begin_probe(self.state, self.now, writable=writable)
        if asking is None:
            return
        assert self.state.open
        assert writable or self.now >= self.state.probe_at
        self.asking = [until for until in self.asking if until > self.now]
        assert not self.asking, "one at a time"
        self.asking.append(asking.probing_until)
        self.state = asking

    @precondition(lambda self: self.asking)
    @rule(well=st.booleans())
    def the_asker_is_answered(self, well: bool) -> None:
        self.asking.pop()
        before = self.state
        self.state = end_probe(before, self.now, well=well)
        if well:
            assert not self.state.open
        elif before.open:
            assert self.state.wait_s >= before.wait_s
            assert self.state.probe_at == self.now + self.state.wait_s
            assert self.state.since == before.since

    @invariant()
    def it_can_always_close(self) -> None:
        """Nobody is locked out for ever: there is a time at which the next one may ask."""
        if self.state.open:
            later = max(self.state.probe_at, self.state.probing_until)
            assert later - self.now <= max(300, LIMITS.reset_timeout_s) + 1e-6  # sums of floats
            assert begin_probe(self.state, max(later, self.now)) is not None
        else:
            assert self.state == replace(Circuit(), failures=self.state.failures)
            assert len(self.state.failures) < LIMITS.failure_threshold


TestCrowd = Crowd.TestCase
