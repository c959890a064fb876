"""The circuit breaker's rule, without clock, file or broker: a state and what can happen to it.

    closed --- 5 failures in 60 s, or a refused password ---> open
    open   --- its wait has passed, or the broker was heard ---> half_open: one asks, nobody else
    half_open --- the one was answered ---> closed
    half_open --- it was not, or is silent ---> open, for twice as long, 300 s at most

Times are seconds of one clock that all who share the state read. A failure that comes when the
breaker is open already, from a call that began before, changes nothing.
"""

from dataclasses import dataclass, replace

from fleet.config.sections import BreakerConfig

WINDOW_S = 60.0
WAIT_MAX_S = 300.0
#: A probe that has said nothing for so long died; longer than a probe's own timeouts.
PROBE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """One state of the breaker."""

    failures: tuple[float, ...] = ()  #: when, of those that may still count; oldest first
    open: bool = False  #: also while half open
    since: float = 0.0  #: when it opened
    cause: str = ""  #: of the failure that opened it: a kind of error, no content
    password: bool = False  #: the broker refused the password
    wait_s: float = 0.0  #: between the last failure and the next probe
    probe_at: float = 0.0  #: when the next one may ask
    probing_until: float = 0.0  #: until when the one who asks is waited for

    def name(self, now: float) -> str:
        """`closed`, `open` or `half_open`."""
        if not self.open:
            return "closed"
        return "half_open" if now < self.probing_until else "open"


def failed(
    state: Circuit, now: float, limits: BreakerConfig, cause: str, *, password: bool = False
) -> Circuit:
    """A call got no answer, or one that refuses all: timeouts, lost connections, read-only ..."""
    if state.open:
        return state
    recent = tuple(at for at in state.failures if 0 <= now - at < WINDOW_S)
    recent = (*recent, now)[-limits.failure_threshold :]
    if len(recent) < limits.failure_threshold and not password:
        return replace(state, failures=recent)
    return Circuit(
        open=True,
        since=now,
        cause=cause,
        password=password,
        wait_s=limits.reset_timeout_s,
        probe_at=now + limits.reset_timeout_s,
    )


def asked(state: Circuit, now: float, *, heard: bool = False) -> Circuit | None:
    """The state in which the caller, and nobody else, asks the broker; None when it must not.

    `heard`: the broker has just taken a write of somebody whom no breaker holds back. Then nobody
    needs to wait, unless the password is in question: an old connection needs none.
    """
    if not state.open or now < state.probing_until:
        return None
    if now < state.probe_at and not (heard and not state.password):
        return None
    return replace(state, probing_until=now + PROBE_S)


def answered(state: Circuit, now: float, *, well: bool) -> Circuit:
    """The one who asked has its answer, or gave up."""
    if not state.open:
        return state
    if well:
        return Circuit()
    wait_s = min(2 * state.wait_s, max(WAIT_MAX_S, state.wait_s))
    return replace(state, wait_s=wait_s, probe_at=now + wait_s, probing_until=0.0)
