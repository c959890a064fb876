"""The circuit breaker's rule, without clock, file or broker: a state and what can happen to it.

    closed --- 5 failures in 60 s, or a refused password or certificate ---> open
    open   --- its wait has passed, or a write got through ---> half_open: one probe, no other call
    half_open --- the probe succeeded ---> closed
    half_open --- it failed, or is silent ---> open, for twice as long, 300 s at most

Times are seconds of one clock that all sharers of the state read. A failure that arrives while the
breaker is open, of a call that began before, changes nothing.

The breakers before models share the window and the longest wait; their state and their moves are in
the store (`scripts/provider.lua`).
"""

from dataclasses import dataclass, replace

from fleet.config.sections import BreakerConfig

WINDOW_S = 60.0
WAIT_MAX_S = 300.0
#: A probe that is silent for so long has died; longer than a probe's own timeouts.
PROBE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """One state of the breaker."""

    failures: tuple[float, ...] = ()  #: times of those that may still count; oldest first
    open: bool = False  #: also while half open
    since: float = 0.0  #: when it opened
    cause: str = ""  #: the kind of error that opened it; no content
    refusal: str = ""  #: a sentence, where a password or a certificate was refused
    wait_s: float = 0.0  #: between the last failure and the next probe
    probe_at: float = 0.0  #: when the next probe may begin
    probing_until: float = 0.0  #: when the running probe counts as dead

    def name(self, now: float) -> str:
        """`closed`, `open` or `half_open`."""
        if not self.open:
            return "closed"
        return "half_open" if now < self.probing_until else "open"


def record_failure(
    state: Circuit, now: float, limits: BreakerConfig, cause: str, *, refusal: str = ""
) -> Circuit:
    """The state after a timeout, a lost connection or a server that rejects all writes."""
    if state.open:
        return state
    recent = tuple(at for at in state.failures if 0 <= now - at < WINDOW_S)
    recent = (*recent, now)[-limits.failure_threshold :]
    if len(recent) < limits.failure_threshold and not refusal:
        return replace(state, failures=recent)
    return Circuit(
        open=True,
        since=now,
        cause=cause,
        refusal=refusal,
        wait_s=limits.reset_timeout_s,
        probe_at=now + limits.reset_timeout_s,
    )


def begin_probe(state: Circuit, now: float, *, writable: bool = False) -> Circuit | None:
    """The state in which the caller alone probes the broker; None when it must not.

    `writable`: the broker has just taken a write of a caller without a breaker. Then the probe need
    not wait, unless there was a refusal: an old connection needs none.
    """
    if not state.open or now < state.probing_until:
        return None
    if now < state.probe_at and not (writable and not state.refusal):
        return None
    return replace(state, probing_until=now + PROBE_S)


def end_probe(state: Circuit, now: float, *, well: bool) -> Circuit:
    """The state after a probe."""
    if not state.open:
        return state
    if well:
        return Circuit()
    wait_s = min(2 * state.wait_s, max(WAIT_MAX_S, state.wait_s))
    return replace(state, wait_s=wait_s, probe_at=now + wait_s, probing_until=0.0)
