"""The state of the spool: a fold over its records, in whatever order the segments are read.

| record   | holds                                                 | written by             |
|----------|-------------------------------------------------------|------------------------|
| `event`  | an accepted event and its plan; `seq` is its place    | whoever accepted it    |
| `begun`  | an attempt of a dispatch began                        | the child that runs it |
| `step`   | one finished step of it                               | the child              |
| `cut`    | the attempt was stopped without a fault of its own    | its parent, drainer    |
| `left`   | it is to go on where the store can be asked           | the child              |
| `ended`  | the outcome                                           | the child, its parent  |

Two rules make the order of the segments irrelevant. Only a process that has the agent's lock of
this machine, and has read what its predecessor wrote, begins an attempt. Nothing follows an `ended`
or a `left` of a dispatch.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fleet.intake.spool.segments import StoredRecord
from fleet.system.clock import Moment

#: The records of a dispatch; it begins with `begun`.
_OF_RUNS = frozenset(("begun", "step", "cut", "left", "ended"))


@dataclass(slots=True)
class Entry:
    """An event in the spool."""

    seq: int
    digest: str
    content: str  #: tells an event from another one under the same id
    agents: tuple[str, ...]
    dispatches: dict[str, str]  #: id -> agent, of those that may run here
    priority: int
    moment: Moment
    reason: str  #: why it is quarantined
    record: StoredRecord


@dataclass(slots=True)
class Run:
    """A dispatch that has begun here."""

    dispatch_id: str
    seq: int
    agent: str = ""
    begun: dict[int, dict[str, Any]] = field(default_factory=dict)  #: by attempt
    cut: set[int] = field(default_factory=set)
    steps: dict[str, str] = field(default_factory=dict)
    ended: dict[str, Any] | None = None
    left: bool = False
    records: list[dict[str, Any]] = field(default_factory=list)  #: all of them, to be kept

    @property
    def attempt(self) -> int:
        """The newest attempt, from 1; 0 before the first."""
        return max(self.begun, default=0)

    @property
    def losses(self) -> int:
        """The earlier attempts whose process died in mid-turn."""
        return sum(n not in self.cut for n in self.begun if n < self.attempt)

    @property
    def is_active(self) -> bool:
        """True when an attempt runs, or its process has died."""
        return bool(self.begun) and not self.is_over and self.attempt not in self.cut

    @property
    def is_over(self) -> bool:
        """True when nothing of it runs here any more."""
        return self.left or self.ended is not None

    @property
    def now(self) -> dict[str, Any]:
        """The record of the newest attempt."""
        return self.begun[self.attempt]

    @property
    def since(self) -> Moment:
        """The beginning of the newest attempt."""
        return Moment(*self.now["at"])


class SpoolState:
    """Not safe between threads."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.is_readable = True  #: False once a record is of a later version
        self.imported = 0  #: the events up to this `seq` are the ledger's
        self.last = 0  #: the highest `seq` ever seen
        self.entries: dict[str, Entry] = {}  #: by digest
        self.runs: dict[str, Run] = {}
        self.bytes = 0
        #: Dispatches of an agent that wait or run, as `max_pending` counts them.
        self.pending: Counter[str] = Counter()

    def apply(self, records: Iterable[StoredRecord]) -> None:
        """Add records, except those of events that the ledger has."""
        for record in records:
            seq, kind = int(record.meta["seq"]), record.meta["k"]
            self.last = max(self.last, seq)
            if seq <= self.imported:
                continue
            if kind == "event":
                self._add_event(record)
            elif kind in _OF_RUNS:
                self._add_to_run(record.meta)
            else:
                self.is_readable = False

    def forget(self, imported: int) -> None:
        """Drop the events up to `imported`, which the ledger has."""
        if imported <= self.imported:
            return
        self.imported, self.last = imported, max(self.last, imported)
        for entry in [one for one in self.entries.values() if one.seq <= imported]:
            del self.entries[entry.digest]
            self.bytes -= entry.record.size
            self.pending.subtract(entry.agents)
        for run in [one for one in self.runs.values() if one.seq <= imported]:
            del self.runs[run.dispatch_id]
            self.pending[run.agent] += run.ended is not None

    def ordered(self) -> list[Entry]:
        """The events, the oldest first."""
        return sorted(self.entries.values(), key=lambda entry: entry.seq)

    def run(self, entry: Entry, dispatch_id: str) -> Run:
        """The run of one dispatch of an event; an empty one where it has not begun."""
        agent = entry.dispatches[dispatch_id]
        return self.runs.get(dispatch_id) or Run(dispatch_id, entry.seq, agent)

    def runs_of(self, entry: Entry) -> list[Run]:
        """The dispatches of an event that have begun."""
        return [run for key in entry.dispatches if (run := self.runs.get(key)) and run.begun]

    def _add_to_run(self, meta: dict[str, Any]) -> None:
        run = self.runs.setdefault(meta["id"], Run(meta["id"], meta["seq"]))
        run.records.append(meta)
        match meta["k"]:
            case "begun":
                run.agent = meta["agent"]
                run.begun[meta["attempt"]] = meta
            case "step":
                run.steps[meta["key"]] = meta["entry"]
            case "cut":
                run.cut.add(meta["attempt"])
            case "left":
                run.left = True
            case "ended" if not run.is_over:
                run.ended, run.agent = meta, meta["agent"]
                # It no longer waits, and makes room for another event of its agent.
                self.pending[run.agent] -= 1

    def _add_event(self, record: StoredRecord) -> None:
        meta = record.meta
        entry = Entry(
            seq=meta["seq"],
            digest=meta["digest"],
            content=meta["content"],
            agents=tuple(meta["agents"]),
            dispatches=meta["dispatches"],
            priority=meta["priority"],
            moment=Moment(*meta["at"]),
            reason=meta.get("reason", ""),
            record=record,
        )
        self.entries[entry.digest] = entry
        self.bytes += record.size
        self.pending.update(entry.agents)
