"""The events in the spool: stored in order, each digest once, until the ledger has them."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from fleet.config.agents import AgentConfig
from fleet.config.settings import Settings
from fleet.errors import IdempotencyConflict, Refused
from fleet.intake.spool import segments
from fleet.intake.spool.folder import SpoolFolder, SpoolFull, usable
from fleet.intake.spool.state import Entry, Run, SpoolState
from fleet.intake.spool.submissions import Submissions
from fleet.ledger.answers import read_payload
from fleet.ledger.arguments import first_dispatches, payload_of
from fleet.ledger.protocol import Accepted, Answer, Ending, ImportedEvent, Report
from fleet.store import keys
from fleet.store.address import broker_identity
from fleet.system import files
from fleet.system.clock import Moment
from routing import Event, Plan, RoutingError

_PLAN = TypeAdapter(Plan)
ENDING = TypeAdapter(Ending)
#: Raised for an event that cannot be read.
UNREADABLE = (ValueError, KeyError, RoutingError)
_PROBE = bytes(4096)


@dataclass(frozen=True, slots=True)
class Size:
    """The amount that the spool holds."""

    events: int
    bytes: int


class Spool(SpoolFolder):
    """Safe to share between threads; each process, also a forked one, needs its own.

    Every method except `holds` raises SpoolFull with one sentence when the files cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        """Open nothing yet."""
        super().__init__(settings.data_dir.absolute() / "spool", broker_identity(settings))
        self.runs_offline = settings.runs_offline  #: True where turns may run from the spool
        self._limits = settings.spool
        self._agents = settings.agents
        self._chains = settings.routing_chains()
        self._quarantine = self.folder / "quarantine"
        self._submissions = Submissions(self.folder / "slots", self.slot, settings)

    @property
    def enabled(self) -> bool:
        """False where the operator wants no spool."""
        return self._limits.max_events > 0

    def prepare(self) -> None:
        """Make the folder, and look whether an earlier process left anything in it."""
        with usable():
            self._submissions.adopt_older(self.folder)
        with self.alone():
            # Its place on the disk, now that there is room.
            self.write_progress(*self.read_progress())
        self.check_holds()

    def check_holds(self) -> bool:
        """True while an event waits; makes the file that tells so again, should it be lost."""
        if not self.holds and self.size().events:
            with self.alone() as state:
                if state.entries:
                    self._holds.touch(mode=0o600)
        return self.holds

    def may_have_run(self, digest: str) -> bool:
        """True when the ledger may have this event, and when that is unknown: it waits for it.

        This is the one rule about running twice. It holds for every event in the spool, whoever
        named it, and is asked when a turn is about to begin.
        """
        return not self.runs_offline or self.is_damaged or self._submissions.has(digest)

    def record_submissions(self, events: Iterable[Event], *, sync: bool = False) -> None:
        """Record events before the ledger may have them: none of them runs from the spool."""
        if self.runs_offline:
            with usable():
                self._submissions.record((keys.event_digest(one.key) for one in events), sync=sync)

    def store(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        """Store each event, synced to disk when this returns; a known one is not stored twice.

        All or nothing, except events of an agent that has too many already, and events whose id
        stands for other content.
        """
        with self.alone() as state:
            self.check_identity()
            # Before the events: from now on no process submits an event past the spool.
            if not self.holds:
                self._holds.touch(mode=0o600)
            new = _Batch(state.pending.copy(), state.last)
            answers = [self._store(state, new, event, plan) for event, plan in batch]
            # Whoever stored the known ones may have died before they were synced. The write comes
            # last: whatever fails before it, nothing of a refused batch stays.
            for path in new.known:
                segments.sync(path)
            if new.lines:
                self._check_limits(state, new.lines)
                self._writer.append(new.lines)
        return answers

    def first(self, count: int) -> tuple[dict[str, ImportedEvent], int]:
        """The oldest events by digest, and the number of the last; an unreadable one is
        quarantined.
        """
        found, last = dict[str, ImportedEvent](), 0
        with self.alone() as state:
            for entry in state.ordered()[:count]:
                last = entry.seq
                try:
                    found[entry.digest] = imported_event(state, entry)
                except UNREADABLE as error:
                    reason = f"it cannot be read any more ({type(error).__name__})"
                    self.quarantine(entry.digest, reason)
        return found, last

    def mark_imported(self, last: int) -> bool:
        """Record that the ledger has the events up to `last`, of those that `first` returned.

        True when, from now on, no event waits. A mark that a power loss undoes makes events be
        imported again: duplicates.
        """
        with self.alone() as state:
            imported, reported = self.read_progress()
            imported = max(imported, last)
            self.write_progress(imported, reported)
            state.forget(imported)
            self.delete_imported(imported)
            if state.entries:
                return False
            # A power loss must not bring the segments back without the file that tells of them.
            segments.sync(self.segments)
            self._holds.unlink(missing_ok=True)
        return True

    def quarantine(self, digest: str, reason: str) -> None:
        """Set apart an event that the ledger cannot accept as it is, with what ran of it.

        The file is complete before the event counts as imported.
        """
        with self.view() as state:
            entry, path = state.entries.get(digest), self._quarantine / f"{digest}.log"
            # A repeated one never ran: what became of the first is in its file.
            if entry is None or path.exists():
                return
            meta, body = {**entry.record.meta, "reason": reason}, segments.read_body(entry.record)
            lines = [segments.encode(meta, body)]
            lines += [segments.encode(one) for run in state.runs_of(entry) for one in run.records]
            self._quarantine.mkdir(exist_ok=True, mode=0o700)
            files.replace(path, b"".join(lines).decode(), sync=True)
            segments.sync(self._quarantine)
            segments.sync(self.folder)

    def quarantined(self) -> list[tuple[Path, SpoolState]]:
        """Each quarantined event as a state of its own."""
        with usable():
            paths = sorted(self._quarantine.glob("*.log"))
            return [(path, _read_quarantined(path)) for path in paths]

    def size(self) -> Size:
        """The events that wait, and their bytes."""
        with self.view() as state:
            return Size(len(state.entries), state.bytes)

    def check_room(self) -> None:
        """Raise SpoolFull when an event that comes now would not be stored."""
        with self.alone() as state:
            self.check_identity()
            self._check_limits(state, [b"\n"])
            # Only a write shows a full disk.
            probe = self.folder / f"probe-{os.getpid()}"
            try:
                probe.touch(mode=0o600)
                probe.write_bytes(_PROBE)
            finally:
                probe.unlink(missing_ok=True)

    def count_refused(self, events: int) -> None:
        """Count events that neither broker nor spool accepted."""
        self._submissions.count_refused(events)

    @property
    def refused(self) -> int:
        """The events refused since the bus was last notified."""
        with usable():
            return max(0, self._submissions.refused() - self.read_progress()[1])

    def mark_reported(self, refused: int) -> None:
        """Record that the bus was notified of so many more."""
        with self.alone():
            imported, reported = self.read_progress()
            self.write_progress(imported, reported + refused)

    def _store(self, state: SpoolState, new: "_Batch", event: Event, plan: Plan) -> Answer:
        digest = keys.event_digest(event.key)
        if earlier := new.accepted.get(digest):
            content, answer = earlier
            if content != event.content:
                return IdempotencyConflict()
            return replace(answer, duplicate=True)
        if entry := state.entries.get(digest):
            new.known.add(entry.record.path)
            if entry.content != event.content:
                return IdempotencyConflict()
            return self._accepted(event, read_entry(entry)[1], duplicate=True)
        # A quarantined event was accepted, too, and is tried again.
        aside = _read_quarantined(self._quarantine / f"{digest}.log").entries.get(digest)
        if aside is not None and aside.content != event.content:
            return IdempotencyConflict()
        for agent in plan.agents:
            if new.pending[agent] >= self._agents[agent].max_pending:
                return Refused(
                    f"{agent} has {new.pending[agent]} events waiting for the broker, its "
                    "max_pending: send it later."
                )
        new.pending.update(plan.agents)
        dispatches = {}
        if self._needs_no_store(event, plan):
            dispatches = {keys.dispatch_id(event.key, agent): agent for agent in plan.agents}
        meta = {
            "k": "event",
            "seq": new.last + len(new.lines) + 1,
            "digest": digest,
            "content": event.content,
            "agents": plan.agents,
            "dispatches": dispatches,
            "priority": event.priority,
            "at": astuple(Moment.now()),
        }
        payload = payload_of(event).encode(errors="replace")
        new.lines.append(segments.encode(meta, payload + b"\t" + _PLAN.dump_json(plan)))
        answer = self._accepted(event, plan, duplicate=False)
        new.accepted[digest] = event.content, answer
        return answer

    def _check_limits(self, state: SpoolState, lines: Sequence[bytes]) -> None:
        events, size = len(state.entries) + len(lines), state.bytes + sum(map(len, lines))
        if events > self._limits.max_events or size > self._limits.max_bytes:
            raise SpoolFull(
                f"the spool is full with {len(state.entries)} events of {state.bytes} bytes: "
                "send it again later, or raise spool.max_events and spool.max_bytes."
            )

    def _needs_no_store(self, event: Event, plan: Plan) -> bool:
        """True when nothing that only the ledger knows must come before this event."""
        if event.session is not None or plan.chain is not None:
            return False
        return all(may_run_here(self._agents.get(agent)) for agent in plan.agents)

    def _accepted(self, event: Event, plan: Plan, *, duplicate: bool) -> Accepted:
        """The answer that the ledger will give."""
        pairs = tuple((keys.dispatch_id(event.key, agent), agent) for agent in plan.agents)
        chain_id = None
        if plan.chain is not None:
            chain_id = keys.chain_id(event.key, plan.chain)
            if chain := self._chains.get(plan.chain):
                pairs = first_dispatches(chain, event)
        return Accepted(
            event_id=event.id,
            dispatches=pairs,
            duplicate=duplicate,
            chain=plan.chain,
            chain_id=chain_id,
        )


@dataclass(slots=True)
class _Batch:
    """A batch of which some events are looked at."""

    pending: Counter[str]  #: with those of the batch
    last: int  #: the highest `seq` before it
    lines: list[bytes] = field(default_factory=list)
    accepted: dict[str, tuple[str, Accepted]] = field(default_factory=dict)  #: with the content
    known: set[Path] = field(default_factory=set)  #: the segments of events stored before


def may_run_here(agent: AgentConfig | None) -> bool:
    """True when an agent's turns need nothing that only the store knows."""
    if agent is None or agent.callback:
        return False
    return agent.budget.usd_per_day is None and agent.budget.tokens_per_day is None


def _read_quarantined(path: Path) -> SpoolState:
    state = SpoolState()
    with suppress(FileNotFoundError):
        state.apply(segments.read_segment(path))
    return state


def read_entry(entry: Entry) -> tuple[Event, Plan]:
    """The event and its plan as they were stored.

    Raises one of UNREADABLE for an event that cannot be read, OSError.
    """
    payload, _, plan = segments.read_body(entry.record).decode().partition("\t")
    return read_payload(payload), _PLAN.validate_json(plan)


def imported_event(state: SpoolState, entry: Entry) -> ImportedEvent:
    """An event with the reports of its dispatches, as the ledger takes it; raises as above."""
    event, plan = read_entry(entry)
    reports = tuple(report(run) for run in state.runs_of(entry))
    return ImportedEvent(event=event, plan=plan, age_s=entry.moment.age_s(), reports=reports)


def report(run: Run) -> Report:
    """Report a dispatch that has begun here to the ledger."""
    age_s, ended_ago_s, ending, losses = run.since.age_s(), 0.0, None, run.losses
    if run.ended is not None:
        ended_ago_s, losses = Moment(*run.ended["at"]).age_s(), run.ended["losses"]
        ending = ENDING.validate_json(run.ended["ending"])
    return Report(
        dispatch_id=run.dispatch_id,
        agent=run.agent,
        run=run.now["run"],
        attempt=run.attempt,
        losses=losses,
        holder=run.now["holder"],
        started_ago_s=age_s,
        elapsed_s=max(0.0, age_s - ended_ago_s),
        ending=ending,
        steps=run.steps,
    )
