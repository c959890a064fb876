"""The state of the spool: a fold over its records, in whatever order the segments are read.

| record   | holds                                                 | written by             |
|----------|-------------------------------------------------------|------------------------|
| `event`  | an accepted event and its plan; `seq` is its place    | whoever accepted it    |
| `begun`  | an attempt of a dispatch began                        | the child that runs it |
| `step`   | one finished step of it                               | the child              |
| `cut`    | the attempt was stopped without a fault of its own    | the drainer            |
| `left`   | it is to go on where the store can be asked           | the child              |
| `ended`  | the outcome                                           | the child, its parent  |
| `reason` | why an event is quarantined                           | the drainer            |

Two rules make the order of the segments irrelevant. Only a process that has the agent's lock of
this machine, and has read what its predecessor wrote, begins an attempt. Nothing follows an `ended`
or a `left` of a dispatch.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fleet.intake.spool.segments import Place, StoredRecord
from fleet.system.clock import Moment


@dataclass(slots=True)
class Entry:
    """An event in the spool."""

    meta: dict[str, Any]  #: its record
    seq: int
    digest: str
    content: str  #: tells an event from another one under the same id
    agents: tuple[str, ...]
    dispatches: dict[str, str]  #: id -> agent, of those that may run here
    priority: int
    moment: Moment
    place: Place
    size: int


@dataclass(slots=True)
class Run:
    """A dispatch that has begun here."""

    dispatch_id: str
    seq: int
    agent: str
    begun: dict[int, dict[str, Any]] = field(default_factory=dict)  #: by attempt
    cut: set[int] = field(default_factory=set)
    steps: dict[str, str] = field(default_factory=dict)
    ended: dict[str, Any] | None = None
    left: bool = False

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

    def records(self) -> Iterator[dict[str, Any]]:
        """The records that make this state again."""
        base = {"seq": self.seq, "id": self.dispatch_id}
        yield from self.begun.values()
        for number in self.cut:
            yield {"k": "cut", **base, "attempt": number}
        for key, entry in self.steps.items():
            yield {"k": "step", **base, "key": key, "entry": entry}
        if self.left:
            yield {"k": "left", **base}
        if self.ended is not None:
            yield self.ended


class SpoolState:
    """Not safe between threads."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.is_readable = True  #: False once a record is of a later version
        self.entries: dict[int, Entry] = {}
        self.runs: dict[str, Run] = {}
        self.reason = ""
        self.bytes = 0
        self.last = 0  #: the highest `seq` ever seen
        #: Dispatches of an agent that wait or run, as `max_pending` counts them.
        self.pending: Counter[str] = Counter()
        self._order: list[int] = []
        self._seqs: dict[str, int] = {}  #: by digest
        self._dispatches: dict[str, int] = {}

    def apply(self, records: Iterable[StoredRecord], imported: int) -> None:
        """Add records, except those of events that the ledger has: `seq` up to `imported`."""
        for record in records:
            seq = int(record.meta["seq"])
            self.last = max(self.last, seq)
            if seq > imported:
                apply = getattr(self, f"_on_{record.meta['k']}", None)
                if apply is None:
                    self.is_readable = False
                else:
                    apply(record)

    def forget(self, imported: int) -> None:
        """Drop the events up to `imported`, which the ledger has."""
        while self._order and self._order[0] <= imported:
            entry = self.entries.pop(self._order.pop(0))
            self._seqs.pop(entry.digest, None)
            self.bytes -= entry.size
            self.pending -= Counter(self._open_agents(entry))
            for dispatch_id in entry.dispatches:
                self._dispatches.pop(dispatch_id, None)
        for dispatch_id in [key for key, run in self.runs.items() if run.seq <= imported]:
            del self.runs[dispatch_id]

    def ordered(self) -> Iterator[Entry]:
        """The events, the oldest first."""
        return (self.entries[seq] for seq in self._order)

    def find(self, digest: str) -> Entry | None:
        """The event of that digest."""
        seq = self._seqs.get(digest)
        return None if seq is None else self.entries[seq]

    def dispatch(self, dispatch_id: str) -> tuple[Entry, Run] | None:
        """A dispatch that may run here, and what became of it."""
        seq = self._dispatches.get(dispatch_id)
        if seq is None:
            return None
        entry = self.entries[seq]
        return entry, self.run(entry, dispatch_id)

    def run(self, entry: Entry, dispatch_id: str) -> Run:
        """The run of one dispatch of an event; an empty one where it has not begun."""
        agent = entry.dispatches[dispatch_id]
        return self.runs.get(dispatch_id) or Run(dispatch_id, entry.seq, agent)

    def _open_agents(self, entry: Entry) -> list[str]:
        over = {
            agent
            for dispatch_id, agent in entry.dispatches.items()
            if (run := self.runs.get(dispatch_id)) and run.ended is not None
        }
        return [agent for agent in entry.agents if agent not in over]

    def _on_event(self, record: StoredRecord) -> None:
        meta = record.meta
        entry = Entry(
            meta=meta,
            seq=meta["seq"],
            digest=meta["digest"],
            content=meta["content"],
            agents=tuple(meta["agents"]),
            dispatches=meta["dispatches"],
            priority=meta["priority"],
            moment=Moment(*meta["at"]),
            place=record.body,
            size=record.size,
        )
        self.entries[entry.seq] = entry
        insort(self._order, entry.seq)
        self._seqs[entry.digest] = entry.seq
        self._dispatches |= dict.fromkeys(entry.dispatches, entry.seq)
        self.bytes += entry.size
        self.pending += Counter(self._open_agents(entry))

    def _on_begun(self, record: StoredRecord) -> None:
        run = self._run_of(record)
        run.agent = record.meta["agent"]
        run.begun[record.meta["attempt"]] = record.meta

    def _on_step(self, record: StoredRecord) -> None:
        self._run_of(record).steps[record.meta["key"]] = record.meta["entry"]

    def _on_cut(self, record: StoredRecord) -> None:
        self._run_of(record).cut.add(record.meta["attempt"])

    def _on_left(self, record: StoredRecord) -> None:
        self._run_of(record).left = True

    def _on_ended(self, record: StoredRecord) -> None:
        run = self._run_of(record)
        if run.ended is None and not run.left:
            run.ended = record.meta
            # It no longer waits, and makes room for another event of its agent.
            if run.seq in self.entries:
                self.pending -= Counter([record.meta["agent"]])

    def _on_reason(self, record: StoredRecord) -> None:
        self.reason = record.meta["reason"]

    def _run_of(self, record: StoredRecord) -> Run:
        seq, dispatch_id = record.meta["seq"], record.meta["id"]
        return self.runs.setdefault(dispatch_id, Run(dispatch_id, seq, ""))
