"""The auditor: checks the records of a run against the guarantees. It queries no living process.

It reads five records by different writers: the sender's list of accepted dispatches, the ledger,
the bus, the provider's log of calls, and the turns' diary. The last two are written outside of the
fleet, and carry CLOCK_MONOTONIC, one clock for the machine.

Violations:

lost            accepted, but without an outcome in the ledger or on the bus
doubled         more than one outcome, another in the ledger than on the bus, or a start after it
overlaps        two turns of one agent, or of one session, at the same time
reordered       within a session, a start while an earlier one had not yet ended; among an agent's
                events without a session, a first start before that of an earlier one
repeated_calls  a call repeated although an earlier attempt had finished and journalled it
stale_writes    an outcome written under a token other than the agent's newest, or a token given
                to two holders
run_twice       a turn that ran to its end, and then began or called again: its outcome was
                committed, or a call followed its last step, or one attempt ended twice

Three of them have a kind of their own where an outage of the broker was involved:

outage_lost     lost, and accepted during an outage
offline_twice   run twice, once by offline execution and once in a worker
offline_overlaps    two turns of one agent or session at once: one offline, one in a worker
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fleet.ledger import State
from fleet.ledger.bus import BusEvent

OUTCOMES = {f"dispatch_{state}": state for state in State if state.terminal}
#: The executors of a turn, as its diary names them.
WORKER, OFFLINE = "worker", "offline"
#: After one of these the agent is free.
_ENDS_TURN = {*OUTCOMES, "dispatch_failed", "dispatch_queued"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMark:
    """One line of a turn's diary."""

    at_ns: int
    kind: str  #: start, alive, kept (a step is in the journal), done (all are), end
    agent: str
    session: str
    dispatch_id: str
    attempt: int
    pid: int
    place: str = WORKER
    step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request in the provider's log."""

    dispatch_id: str
    step: str
    attempt: int
    started_ns: int
    finished_ns: int | None  #: None: the caller disconnected before the whole answer was written


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All records of a run."""

    accepted: frozenset[str]  #: dispatch ids that a sender received
    bus: tuple[BusEvent, ...]
    #: The records of the ledger by dispatch id, as they are stored.
    records: Mapping[str, Mapping[str, str]]
    #: dispatch id -> step -> the attempt that journalled it
    journal: Mapping[str, Mapping[str, int]]
    marks: tuple[RunMark, ...]
    calls: tuple[Call, ...]
    #: Dispatch ids accepted in an outage -> the door and the outage.
    in_outage: Mapping[str, str] = field(default_factory=dict)
    #: Sentences of senders about one event that was answered with two sets of ids.
    contradictions: tuple[str, ...] = ()


#: The kinds of violations, in the order of the report.
KINDS = (
    "lost",
    "outage_lost",
    "doubled",
    "run_twice",
    "offline_twice",
    "overlaps",
    "offline_overlaps",
    "reordered",
    "repeated_calls",
    "stale_writes",
)


@dataclass(slots=True)
class AuditReport:
    """The violations, each as a sentence, and the figures of a run."""

    lost: list[str] = field(default_factory=list)
    outage_lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    run_twice: list[str] = field(default_factory=list)
    offline_twice: list[str] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    offline_overlaps: list[str] = field(default_factory=list)
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
    offline: int = 0  #: attempts by offline execution
    worst_s: float = 0.0  #: the longest time from an acceptance to its outcome, by the bus

    @property
    def violations(self) -> list[str]:
        """All violations, each prefixed by its kind."""
        return [f"{kind}: {text}" for kind in KINDS for text in getattr(self, kind)]

    def counts(self, kinds: Iterable[str] = KINDS) -> dict[str, int]:
        """The number of violations of each kind."""
        return {kind: len(getattr(self, kind)) for kind in kinds}


def audit(history: History) -> AuditReport:
    """Check one history."""
    result = AuditReport(accepted=len(history.accepted), doubled=list(history.contradictions))
    _check_outcomes(history, result)
    _check_bus_order(history, result)
    _check_turns(history.marks, result)
    _check_reruns(history, result)
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
            told = f"{dispatch_id} is {state} in the ledger and {ends_on_bus} on the bus"
            if where := history.in_outage.get(dispatch_id):
                result.outage_lost.append(f"{told}; accepted by {where}")
            else:
                result.lost.append(told)
        elif ends_on_bus != [state]:
            result.doubled.append(
                f"{dispatch_id} is {state} in the ledger and {ends_on_bus} on the bus"
            )
        else:
            result.outcomes[state] = result.outcomes.get(state, 0) + 1


class _Queue:
    """The expected order of starts, by the acceptances and outcomes on the bus."""

    def __init__(self, records: Mapping[str, Mapping[str, str]]) -> None:
        self._records = records
        #: By session: dispatches under way. By agent: those without a session, not started.
        self._waiting: dict[str, list[str]] = defaultdict(list)

    def join(self, dispatch_id: str, agent: str, session: str) -> None:
        """Record an acceptance; a repeat changes nothing."""
        queue = self._waiting[self._place(agent, session)]
        if dispatch_id not in queue:
            queue.append(dispatch_id)

    def before(self, dispatch_id: str, agent: str, session: str) -> str | None:
        """The dispatch that should have started first, or None."""
        queue = self._waiting[self._place(agent, session)]
        if dispatch_id not in queue:  # not its first start
            return None
        first = queue[0] if session else min(queue, key=self._order)
        return None if first == dispatch_id else first

    def leave(self, dispatch_id: str, agent: str, session: str) -> None:
        """Record an outcome or, without a session, a start."""
        queue = self._waiting[self._place(agent, session)]
        if dispatch_id in queue:
            queue.remove(dispatch_id)

    def _order(self, dispatch_id: str) -> float:
        return float(self._records.get(dispatch_id, {}).get("order", 0))

    def _place(self, agent: str, session: str) -> str:
        return f"session {session}" if session else f"agent {agent}"


def _check_bus_order(history: History, result: AuditReport) -> None:
    """Check by the bus that dispatches start in order, one at a time for each agent.

    The bus hears of an offline turn when the ledger does, so only the diary tells its times. A turn
    that was cut off before its first line is known by its import: one script writes its acceptance
    and its start, with one time.
    """
    offline = {mark.dispatch_id for mark in history.marks if mark.place == OFFLINE}
    queue = _Queue(history.records)
    running: dict[str, str] = {}
    joined: dict[str, float] = {}
    for entry in history.bus:
        dispatch_id, agent = (str(entry.fields.get(one)) for one in ("dispatch_id", "agent"))
        if not entry.type.startswith("dispatch_") or dispatch_id in offline:
            continue
        session = str(entry.fields.get("session") or "")
        if entry.type == "dispatch_queued" and dispatch_id not in joined:
            joined[dispatch_id] = _millis(entry)
            queue.join(dispatch_id, agent, session)
        elif entry.type == "dispatch_started" and _millis(entry) != joined.get(dispatch_id):
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
        # A worker's death is recorded by its successor, together with the next start.
        lost = entry.type == "dispatch_failed" and entry.fields.get("stage") == "worker_lost"
        if entry.type in _ENDS_TURN and not lost and running.get(agent) == dispatch_id:
            del running[agent]


@dataclass(slots=True)
class _Run:
    """The lifetime of an attempt, by its own diary."""

    name: str
    place: str
    first_ns: int
    last_ns: int


def _check_turns(marks: Iterable[RunMark], result: AuditReport) -> None:
    runs: dict[tuple[str, str, int, int], _Run] = {}
    places: dict[str, set[tuple[str, str, int, int]]] = defaultdict(set)
    for mark in marks:
        key = (mark.agent, mark.dispatch_id, mark.attempt, mark.pid)
        if key not in runs:
            runs[key] = _Run(_named(mark), mark.place, mark.at_ns, mark.at_ns)
            result.offline += mark.place == OFFLINE
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
                mixed = run.place != longest.place
                (result.offline_overlaps if mixed else result.overlaps).append(
                    f"{place}: {run.name} began {both_ms:.1f} ms before the end of {longest.name}"
                )
            longest = max(longest, run, key=lambda run: run.last_ns)


def _named(mark: RunMark) -> str:
    return f"attempt {mark.attempt} of {mark.dispatch_id} in {mark.place} process {mark.pid}"


def _check_reruns(history: History, result: AuditReport) -> None:
    """Check that nothing of a turn follows its end.

    An attempt may run to its end and die before its commit. The next attempt takes every step from
    the journal, so the turn's function ends twice, but it has no effect twice.
    """
    done: dict[str, list[RunMark]] = defaultdict(list)
    starts: dict[str, list[RunMark]] = defaultdict(list)
    called_ns: dict[tuple[str, int], int] = {}
    for mark in history.marks:
        if mark.kind in ("start", "done"):
            (done if mark.kind == "done" else starts)[mark.dispatch_id].append(mark)
    for call in history.calls:
        key = (call.dispatch_id, call.attempt)
        called_ns[key] = max(call.started_ns, called_ns.get(key, 0))
    for dispatch_id, ends in done.items():
        committed = history.records.get(dispatch_id, {}).get("committed", "").partition("/")[0]
        for end in ends:
            for start in starts[dispatch_id]:
                if (start.attempt, start.pid) == (end.attempt, end.pid):
                    continue
                called = called_ns.get((dispatch_id, start.attempt), 0) > end.at_ns
                again = start.at_ns > end.at_ns and committed == str(end.attempt)
                twice = start.attempt == end.attempt and start.at_ns > end.at_ns
                if called or again or twice:
                    why = "called again" if called else "began again"
                    mixed = start.place != end.place
                    (result.offline_twice if mixed else result.run_twice).append(
                        f"{_named(start)} {why} after the end of {_named(end)}"
                    )


def _check_calls(history: History, result: AuditReport) -> None:
    # By step, the first attempt known to have journalled it: by the ledger or by a turn's diary.
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
        # A worker of a pool holds no agent.
        if entry.type == "agent_online" and "fence" in entry.fields:
            fence, holder = int(entry.fields["fence"]), str(entry.fields.get("holder"))
            if fence < newest.get(agent, 0):
                result.stale_writes.append(f"{agent}: token {fence} after {newest[agent]}")
            if holders.setdefault((agent, fence), holder) != holder:
                result.stale_writes.append(f"{agent}: token {fence} was given to two holders")
            newest[agent] = fence
        elif entry.type in OUTCOMES:
            record = history.records.get(str(entry.fields["dispatch_id"]), {})
            attempt, _, fence_of = record.get("committed", "").partition("/")
            # Without a commit no turn ended it: expired, cancelled, dead-lettered by a claim. A
            # dispatch run from the spool ran under its machine's lock, see `backfill.lua`.
            # A turn in a pool had a token of its own.
            token = record.get("fence", "") if record.get("pool") else str(newest.get(agent))
            under_lease = fence_of in ("spool", token)
            if entry.type == "dispatch_completed" and not (
                under_lease and attempt == record.get("attempt")
            ):
                result.stale_writes.append(
                    f"{record.get('id')} was ended by {attempt}/{fence_of} "
                    f"under token {token}, attempt {record.get('attempt')}"
                )


def _millis(entry: BusEvent) -> float:
    return float(entry.id.partition("-")[0])
