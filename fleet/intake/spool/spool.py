"""The events in the spool: stored in order, each digest once, until the ledger has them."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path

from pydantic import TypeAdapter

from fleet.config.agents import AgentConfig
from fleet.config.settings import Settings
from fleet.errors import IdempotencyConflict, Refused
from fleet.intake.spool import segments
from fleet.intake.spool.folder import SpoolFolder, SpoolFull, usable
from fleet.intake.spool.state import Entry, SpoolState
from fleet.intake.spool.submissions import Submissions
from fleet.ledger.answers import read_payload
from fleet.ledger.arguments import first_dispatches, payload_of
from fleet.ledger.protocol import Accepted, Answer
from fleet.store import keys
from fleet.store.address import broker_identity
from fleet.system import files
from fleet.system.clock import Moment
from routing import Event, Plan, RoutingError

_PLAN = TypeAdapter(Plan)
_PROBE = bytes(4096)


@dataclass(frozen=True, slots=True)
class SpooledEvent:
    """An event that waits for the ledger."""

    seq: int
    event: Event
    plan: Plan
    age_s: float  #: since it was accepted


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
        with self.alone() as state:
            # Its place on the disk, now that there is room.
            self.write_progress(*self.read_progress())
            if state.entries:
                self._holds.touch(mode=0o600)

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
            lines = list[bytes]()
            new = _Batch(state)
            answers = [self._store(new, event, plan, lines) for event, plan in batch]
            if lines:
                held = Size(len(state.entries), state.bytes)
                size = held.bytes + sum(map(len, lines))
                if held.events + len(lines) > self._limits.max_events or (
                    size > self._limits.max_bytes
                ):
                    raise SpoolFull(_full(held))
                self._writer.append(lines)
            # Whoever stored the known ones may have died before they were synced.
            for path in new.found:
                segments.sync(path)
        return answers

    def first(self, count: int) -> tuple[list[SpooledEvent], int]:
        """The oldest events, and the number of the last; an unreadable one is quarantined."""
        found, last = list[SpooledEvent](), 0
        with self.alone() as state:
            for entry in list(islice(state.ordered(), count)):
                last = entry.seq
                try:
                    event, plan = read_entry(entry)
                except (ValueError, KeyError, RoutingError) as error:
                    reason = f"it cannot be read any more ({type(error).__name__})"
                    self.quarantine(entry.seq, reason)
                    continue
                found.append(SpooledEvent(entry.seq, event, plan, entry.moment.age_s()))
        return found, last

    def mark_imported(self, last: int) -> bool:
        """Record that the ledger has the events up to `last`, of those that `first` returned.

        True when, from now on, no event waits. A mark that a power loss undoes makes events be
        imported again: duplicates.
        """
        with self.alone() as state:
            imported, reported = self.read_progress()
            if last > imported:
                self.write_progress(last, reported)
                state.forget(last)
            self.delete_imported()
            if state.entries:
                return False
            # A power loss must not bring the segments back without the file that tells of them.
            segments.sync(self.segments)
            self._holds.unlink(missing_ok=True)
        return True

    def quarantine(self, seq: int, reason: str) -> None:
        """Set apart an event that the ledger cannot accept as it is, with what ran of it.

        The file is complete before the event counts as imported.
        """
        with self.view() as state:
            entry = state.entries.get(seq)
            path = self._quarantine / f"{entry.digest if entry else ''}.log"
            # A repeated one never ran: what became of the first is in its file.
            if entry is None or path.exists():
                return
            runs = [run for run in state.runs.values() if run.seq == seq]
            lines = [segments.encode(entry.meta, segments.read_body(entry.place).encode())]
            lines += [segments.encode(one) for run in runs for one in run.records()]
            lines.append(segments.encode({"k": "reason", "seq": seq, "reason": reason}))
            self._quarantine.mkdir(exist_ok=True, mode=0o700)
            files.replace(path, b"".join(lines).decode(), sync=True)
            segments.sync(self._quarantine)
            segments.sync(self.folder)

    def quarantined(self) -> list[tuple[Path, SpoolState]]:
        """Each quarantined event as a state of its own, with its `reason`."""
        found = []
        with usable():
            for path in sorted(self._quarantine.glob("*.log")):
                state = SpoolState()
                with suppress(FileNotFoundError):
                    state.apply(segments.read_segment(path), -1)
                    found.append((path, state))
        return found

    def size(self) -> Size:
        """The events that wait, and their bytes."""
        if not self.exists:
            return Size(0, 0)
        with self.view() as state:
            return Size(len(state.entries), state.bytes)

    def check_room(self) -> None:
        """Raise SpoolFull when an event that comes now would not be stored."""
        with self.alone() as state:
            self.check_identity()
            held = Size(len(state.entries), state.bytes)
            if held.events >= self._limits.max_events or held.bytes >= self._limits.max_bytes:
                raise SpoolFull(_full(held))
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
        if not self.folder.is_dir():
            return 0
        with usable():
            return max(0, self._submissions.refused() - self.read_progress()[1])

    def mark_reported(self, refused: int) -> None:
        """Record that the bus was notified of so many more."""
        with self.alone():
            imported, reported = self.read_progress()
            self.write_progress(imported, reported + refused)

    def close(self) -> None:
        """Close the files."""
        self._submissions.close()
        super().close()

    def _store(self, new: "_Batch", event: Event, plan: Plan, lines: list[bytes]) -> Answer:
        digest = keys.event_digest(event.key)
        known = new.find(digest)
        if known is not None:
            content, plan_text = known
            if content != event.content:
                return IdempotencyConflict()
            return self._accepted(event, read_plan(plan_text()), duplicate=True)
        # A quarantined event was accepted, too, and is tried again.
        if self._quarantined_content(digest) not in (None, event.content):
            return IdempotencyConflict()
        for agent in plan.agents:
            if new.pending[agent] >= self._agents[agent].max_pending:
                return Refused(
                    f"{agent} has {new.pending[agent]} events waiting for the broker, its "
                    "max_pending: send it later."
                )
        payload, text = payload_of(event).encode(errors="replace"), _PLAN.dump_json(plan)
        dispatches = {}
        if self._needs_no_store(event, plan):
            dispatches = {keys.dispatch_id(event.key, agent): agent for agent in plan.agents}
        meta = {
            "k": "event",
            "seq": new.add(digest, event.content, text.decode(), plan.agents),
            "digest": digest,
            "content": event.content,
            "agents": plan.agents,
            "dispatches": dispatches,
            "priority": event.priority,
            "at": astuple(Moment.now()),
        }
        lines.append(segments.encode(meta, payload + b"\t" + text))
        return self._accepted(event, plan, duplicate=False)

    def _needs_no_store(self, event: Event, plan: Plan) -> bool:
        """True when nothing that only the ledger knows must come before this event."""
        if event.session is not None or plan.chain is not None:
            return False
        return all(may_run_here(self._agents.get(agent)) for agent in plan.agents)

    def _quarantined_content(self, digest: str) -> str | None:
        with suppress(FileNotFoundError):
            for record in segments.read_segment(self._quarantine / f"{digest}.log"):
                if record.meta["k"] == "event":
                    return str(record.meta["content"])
        return None

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


class _Batch:
    """The state with the events of one batch added."""

    def __init__(self, state: SpoolState) -> None:
        self._state = state
        self._added: dict[str, tuple[str, str]] = {}
        self._last = state.last
        self.pending = state.pending.copy()
        self.found = set[Path]()  #: the segments of known events

    def find(self, digest: str) -> tuple[str, Callable[[], str]] | None:
        """The content and the plan of a known event."""
        if added := self._added.get(digest):
            return added[0], lambda: added[1]
        entry = self._state.find(digest)
        if entry is None:
            return None
        self.found.add(entry.place.path)
        return entry.content, lambda: _texts(entry)[1]

    def add(self, digest: str, content: str, plan: str, agents: Iterable[str]) -> int:
        """Add an event; its number."""
        self._added[digest] = content, plan
        self.pending.update(agents)
        self._last += 1
        return self._last


def may_run_here(agent: AgentConfig | None) -> bool:
    """True when an agent's turns need nothing that only the store knows."""
    if agent is None or agent.callback:
        return False
    return agent.budget.usd_per_day is None and agent.budget.tokens_per_day is None


def read_entry(entry: Entry) -> tuple[Event, Plan]:
    """The event and its plan as they were stored.

    Raises ValueError, KeyError or RoutingError for one that cannot be read, OSError.
    """
    payload, plan = _texts(entry)
    return read_payload(payload), read_plan(plan)


def read_plan(text: str) -> Plan:
    """Read a plan as it was stored."""
    return _PLAN.validate_json(text)


def _texts(entry: Entry) -> tuple[str, str]:
    payload, _, plan = segments.read_body(entry.place).partition("\t")
    return payload, plan


def _full(held: Size) -> str:
    return (
        f"the spool is full with {held.events} events of {held.bytes} bytes: "
        "send it again later, or raise spool.max_events and spool.max_bytes."
    )
