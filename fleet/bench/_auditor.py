"""The auditor: what a run left behind, held against what was promised. It asks no living process.

It reads four records that are written by different hands: the sender's list of what was accepted,
the ledger, the bus, and two logs made outside of the fleet, in which the provider notes each call
and each turn notes its own life. The last two carry CLOCK_MONOTONIC, one clock for the machine.

What counts as broken:

lost            accepted, but without an outcome in the ledger or on the bus
doubled         more than one outcome, another in the ledger than on the bus, or a start after it
overlaps        two turns of one agent, or of one session, at the same time
reordered       within a session, a start while an earlier one had not yet ended; among an agent's
                events without a session, a first start before that of an earlier one
repeated_calls  a call made again although an attempt before had finished and journalled it
stale_writes    an outcome written under a token that was not the agent's newest any more, or a
                token given to two holders
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fleet.ledger import State
from fleet.ledger.bus import BusEvent

OUTCOMES = {f"dispatch_{state}": state for state in State if state.terminal}
#: After one of these the agent is free.
_ENDS_TURN = {*OUTCOMES, "dispatch_failed", "dispatch_queued"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMark:
    """One line of a turn about itself."""

    at_ns: int
    kind: str  #: start, alive, kept (a step is in the journal), end
    agent: str
    session: str
    dispatch_id: str
    attempt: int
    pid: int
    step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as the provider saw it."""

    dispatch_id: str
    step: str
    attempt: int
    started_ns: int
    finished_ns: int | None  #: None: the caller was gone before the whole answer was written


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that a run left behind."""

    accepted: frozenset[str]  #: dispatch ids that a sender was told
    bus: tuple[BusEvent, ...]
    #: The records of the ledger by dispatch id, as they are stored.
    records: Mapping[str, Mapping[str, str]]
    #: dispatch id -> step -> the attempt that journalled it
    journal: Mapping[str, Mapping[str, int]]
    marks: tuple[RunMark, ...]
    calls: tuple[Call, ...]


@dataclass(slots=True)
class AuditReport:
    """The violations, each as a sentence, and what else a run is described by."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    repeated_calls: list[str] = field(default_factory=list)
    stale_writes: list[str] = field(default_factory=list)
    accepted: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    interrupted: int = 0  #: attempts that ended with their worker
    resumed_steps: int = 0  #: steps that a later attempt took from the journal
    paid_again: int = (
        0  #: answered calls that were lost with their worker before the journal had them
    )
    worst_s: float = 0.0  #: the longest time from an acceptance to its outcome, by the bus

    @property
    def violations(self) -> list[str]:
        """All of them, each with its kind before it."""
        kinds = ("lost", "doubled", "overlaps", "reordered", "repeated_calls", "stale_writes")
        return [f"{kind}: {text}" for kind in kinds for text in getattr(self, kind)]


def audit(history: History) -> AuditReport:
    """Judge one history."""
    result = AuditReport(accepted=len(history.accepted))
    _check_outcomes(history, result)
    _check_bus_order(history, result)
    _check_turns(history.marks, result)
    _check_calls(history, result)
    _check_tokens(history, result)
    return result


def _check_outcomes(history: History, result: AuditReport) -> None:
    ends: dict[str, list[str]] = defaultdict(list)
    since: dict[str, float] = {}
    for entry in history.bus:
        dispatch_id = str(entry.fields.get("dispatch_id", ""))
        if entry.type == "dispatch_queued":
            since.setdefault(dispatch_id, _millis(entry))
        elif entry.type in OUTCOMES:
            ends[dispatch_id].append(OUTCOMES[entry.type])
            began = since.get(dispatch_id, _millis(entry))
            result.worst_s = max(result.worst_s, (_millis(entry) - began) / 1000)
        elif entry.type == "dispatch_started" and ends[dispatch_id]:
            result.doubled.append(f"{dispatch_id} started again after {ends[dispatch_id]}")
        elif entry.type == "dispatch_failed" and entry.fields.get("stage") == "worker_lost":
            result.interrupted += 1
    for dispatch_id in sorted(history.accepted | history.records.keys()):
        ends_on_bus = ends[dispatch_id]
        state = history.records.get(dispatch_id, {}).get("state", "unknown")
        if not ends_on_bus or state not in OUTCOMES.values():
            result.lost.append(
                f"{dispatch_id} is {state} in the ledger and {ends_on_bus} on the bus"
            )
        elif ends_on_bus != [state]:
            result.doubled.append(
                f"{dispatch_id} is {state} in the ledger and {ends_on_bus} on the bus"
            )
        else:
            result.outcomes[state] = result.outcomes.get(state, 0) + 1


class _Queue:
    """Who stands before whom, as acceptances and outcomes come by on the bus."""

    def __init__(self, records: Mapping[str, Mapping[str, str]]) -> None:
        self._records = records
        #: By session: those that have not ended. By agent: those without a session, never started.
        self._waiting: dict[str, list[str]] = defaultdict(list)

    def join(self, dispatch_id: str, agent: str, session: str) -> None:
        """Accepted, or queued again, which changes nothing."""
        queue = self._waiting[self._place(agent, session)]
        if dispatch_id not in queue:
            queue.append(dispatch_id)

    def before(self, dispatch_id: str, agent: str, session: str) -> str | None:
        """Who should have started instead of this one, if anybody."""
        queue = self._waiting[self._place(agent, session)]
        if dispatch_id not in queue:  # not its first start
            return None
        first = queue[0] if session else min(queue, key=self._order)
        return None if first == dispatch_id else first

    def leave(self, dispatch_id: str, agent: str, session: str) -> None:
        """Ended, or, without a session, started."""
        queue = self._waiting[self._place(agent, session)]
        if dispatch_id in queue:
            queue.remove(dispatch_id)

    def _order(self, dispatch_id: str) -> float:
        return float(self._records.get(dispatch_id, {}).get("order", 0))

    def _place(self, agent: str, session: str) -> str:
        return f"session {session}" if session else f"agent {agent}"


def _check_bus_order(history: History, result: AuditReport) -> None:
    """Starts in order, and one at a time, as the bus tells it."""
    queue = _Queue(history.records)
    running: dict[str, str] = {}
    joined: set[str] = set()
    for entry in history.bus:
        if not entry.type.startswith("dispatch_"):
            continue
        dispatch_id, agent = str(entry.fields["dispatch_id"]), str(entry.fields["agent"])
        session = str(entry.fields.get("session") or "")
        if entry.type == "dispatch_queued" and dispatch_id not in joined:
            joined.add(dispatch_id)
            queue.join(dispatch_id, agent, session)
        elif entry.type == "dispatch_started":
            other = running.get(agent, dispatch_id)
            if other != dispatch_id:
                result.overlaps.append(f"{dispatch_id} started while {agent} ran {other}")
            running[agent] = dispatch_id
            if first := queue.before(dispatch_id, agent, session):
                result.reordered.append(f"{dispatch_id} started before {first}")
            if not session:
                queue.leave(dispatch_id, agent, session)
        if entry.type in OUTCOMES:
            queue.leave(dispatch_id, agent, session)
        # A worker's death is noted by the one that takes its place, together with the next start.
        lost = entry.type == "dispatch_failed" and entry.fields.get("stage") == "worker_lost"
        if entry.type in _ENDS_TURN and not lost and running.get(agent) == dispatch_id:
            del running[agent]


@dataclass(slots=True)
class _Run:
    """One attempt's own life, from its first sign to its last."""

    name: str
    first_ns: int
    last_ns: int


def _check_turns(marks: Iterable[RunMark], result: AuditReport) -> None:
    runs: dict[tuple[str, str, int, int], _Run] = {}
    places: dict[str, set[tuple[str, str, int, int]]] = defaultdict(set)
    for mark in marks:
        key = (mark.agent, mark.dispatch_id, mark.attempt, mark.pid)
        if key not in runs:
            name = f"attempt {mark.attempt} of {mark.dispatch_id} in process {mark.pid}"
            runs[key] = _Run(name, mark.at_ns, mark.at_ns)
            places[f"agent {mark.agent}"].add(key)
            if mark.session:
                places[f"session {mark.session}"].add(key)
        runs[key].first_ns = min(runs[key].first_ns, mark.at_ns)
        runs[key].last_ns = max(runs[key].last_ns, mark.at_ns)
    for place, keys in places.items():
        ordered = sorted((runs[key] for key in keys), key=lambda run: run.first_ns)
        longest = ordered[0]
        for run in ordered[1:]:
            if run.first_ns < longest.last_ns:
                both_ms = (min(run.last_ns, longest.last_ns) - run.first_ns) / 1e6
                result.overlaps.append(
                    f"{place}: {run.name} began {both_ms:.1f} ms before the end of {longest.name}"
                )
            longest = max(longest, run, key=lambda run: run.last_ns)


def _check_calls(history: History, result: AuditReport) -> None:
    # The first that is known to have kept it: by the ledger at the end, or by a turn's own word.
    journalled = {
        (dispatch_id, step): attempt
        for dispatch_id, steps in history.journal.items()
        for step, attempt in steps.items()
    }
    for mark in history.marks:
        if mark.kind == "kept":
            step = (mark.dispatch_id, mark.step)
            if mark.attempt > journalled.get(step, mark.attempt):
                result.resumed_steps += 1
            journalled[step] = min(mark.attempt, journalled.get(step, mark.attempt))
    made: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in history.calls:
        made[call.dispatch_id, call.step].append(call)
    for step, calls in made.items():
        attempts = [call.attempt for call in calls]
        twice = len(attempts) > len(set(attempts))
        if twice or max(attempts) > journalled.get(step, max(attempts)):
            result.repeated_calls.append(
                f"step {step[1]} of {step[0]} was kept by attempt {journalled.get(step)}, "
                f"called by {attempts}"
            )
        result.paid_again += max(0, sum(call.finished_ns is not None for call in calls) - 1)


def _check_tokens(history: History, result: AuditReport) -> None:
    newest: dict[str, int] = {}
    holders: dict[tuple[str, int], str] = {}
    for entry in history.bus:
        agent = str(entry.fields.get("agent", ""))
        if entry.type == "agent_online":
            fence, holder = int(entry.fields["fence"]), str(entry.fields.get("holder"))
            if fence < newest.get(agent, 0):
                result.stale_writes.append(f"{agent}: token {fence} after {newest[agent]}")
            if holders.setdefault((agent, fence), holder) != holder:
                result.stale_writes.append(f"{agent}: token {fence} was given to two holders")
            newest[agent] = fence
        elif entry.type in OUTCOMES:
            record = history.records.get(str(entry.fields["dispatch_id"]), {})
            attempt, _, fence_of = record.get("committed", "").partition("/")
            # Without a commit nobody's turn ended it: expired, cancelled, buried by a claim. What
            # ran from the spool did so under the lock of its machine, see `backfill.lua`.
            under_lease = fence_of == "spool" or int(fence_of or 0) == newest.get(agent)
            if entry.type == "dispatch_completed" and not (
                under_lease and attempt == record.get("attempt")
            ):
                result.stale_writes.append(
                    f"{record.get('id')} was ended by {attempt}/{fence_of} "
                    f"under token {newest.get(agent)}, attempt {record.get('attempt')}"
                )


def _millis(entry: BusEvent) -> float:
    return float(entry.id.partition("-")[0])
