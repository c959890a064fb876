"""Waiting for dispatches to end: the bus says when to look, the ledger says what is true.

The bus is followed from an id taken before the events were sent, so nothing that happens in between
is missed. When the broker goes away, or the bus has been trimmed past us, the ledger is asked.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.errors import BrokerUnavailable, FleetError
from fleet.ledger import State, bus, views
from fleet.ledger.bus import BusEvent
from fleet.store import Store

#: The ledger is asked this often although the bus is silent.
POLL_INTERVAL_S = 5.0
#: A broker that restarts answers within seconds, one that loads a large file within a minute.
BROKER_TIMEOUT_S = 60.0
RETRY_S = 0.5

_STATE_AFTER = {
    "dispatch_queued": State.QUEUED,
    "dispatch_started": State.ACTIVE,
    "dispatch_parked": State.PARKED,
}
#: The notice of an API that entries may be missing before it.
RESYNC = "resync_required"
#: Not within the ledger's retention, unless somebody purges the dispatch.
_FORGOTTEN = {"state": State.DROPPED, "error": "the ledger no longer holds it"}


class WatchSource(Protocol):
    """The bus and the ledger of a fleet. Each raises BrokerUnavailable while it is away."""

    def last_id(self) -> str:
        """The newest id of the bus; empty where it is not known yet."""

    def read(self, after: str, *, block_ms: int) -> list[BusEvent]:
        """The entries after an id; waits for the first one."""

    def dispatch(self, dispatch_id: str) -> dict[str, Any] | None:
        """The record of a dispatch with its content; None where it is not known."""

    def chain(self, chain_id: str) -> dict[str, Any] | None:
        """The state of a chain and its dispatches, each `(id, agent)`."""


class StoreSource:
    """The store as a `WatchSource`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def last_id(self) -> str:
        """The newest id of the bus."""
        return bus.last_id(self._store)

    def read(self, after: str, *, block_ms: int) -> list[BusEvent]:
        """The entries after an id."""
        return bus.read(self._store, after, block_ms=block_ms)

    def dispatch(self, dispatch_id: str) -> dict[str, Any] | None:
        """The record of a dispatch with its content."""
        return views.get(self._store, dispatch_id, content=True)

    def chain(self, chain_id: str) -> dict[str, Any] | None:
        """The state of a chain and its dispatches."""
        return views.chain(self._store, chain_id)


class StillRunning(FleetError):
    """The given time has passed; the dispatches go on."""


@dataclass(slots=True)
class Watched:
    """One dispatch, as last read."""

    dispatch_id: str
    agent: str
    state: State = State.QUEUED
    note: str = ""
    record: dict[str, Any] | None = None  #: with content, once it has ended
    since: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        """True when its outcome is known."""
        return self.record is not None

    def poll(self, source: WatchSource) -> None:
        """Update from the ledger. Raises BrokerUnavailable."""
        record = source.dispatch(self.dispatch_id)
        self.update(record or {"dispatch_id": self.dispatch_id, "agent": self.agent, **_FORGOTTEN})

    def update(self, record: dict[str, Any]) -> None:
        """Update from a ledger's record."""
        self.state = State(record["state"])
        self.note = ": ".join(str(record[name]) for name in ("stage", "error") if name in record)
        if self.state is State.PARKED:
            self.note = f"{record['waiting_for']}: {self.dispatch_id}"
        if self.state.terminal:
            self.record = record


@dataclass(slots=True)
class WatchedChain:
    """A chain, as last read: its dispatches so far, and how it ended."""

    name: str
    id: str
    outcome: str = "running"
    reason: str = ""

    @property
    def ended(self) -> bool:
        """True when its outcome is known."""
        return self.outcome != "running"

    def poll(self, source: WatchSource, watched: list[Watched]) -> None:
        """Update from the ledger; add new dispatches to `watched`. Raises BrokerUnavailable."""
        found = source.chain(self.id) or {
            "state": str(State.DROPPED),
            "reason": _FORGOTTEN["error"],
            "dispatches": [],
        }
        known = {one.dispatch_id for one in watched}
        watched += [Watched(i, agent) for i, agent in found["dispatches"] if i not in known]
        self.outcome, self.reason = found["state"], found["reason"] or ""


def watch(
    connect: Callable[[], WatchSource],
    watched: list[Watched],
    after: str,
    timeout_s: float | None,
    chain: WatchedChain | None = None,
    elsewhere: Callable[[str], dict[str, Any] | None] = lambda _dispatch_id: None,
) -> Iterator[BusEvent | None]:
    """Update `watched` until all have ended; yields each of their bus events, None in between.

    With a `chain`, until the chain has ended; dispatches of its further stages join `watched`.
    `connect` opens a source, again after a failure. While the store is down, `elsewhere` may know
    how a dispatch ended. An empty `after` is the end of the bus when the broker answers. Raises
    StillRunning after `timeout_s`; where that is None, BrokerUnavailable after BROKER_TIMEOUT_S.
    """
    ends = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
    source: WatchSource | None = None
    query_at = away_since = 0.0
    while True:
        try:
            source = source or connect()
            after = after or source.last_id()
            if time.monotonic() >= query_at:
                _query(source, watched, chain)
                query_at = time.monotonic() + POLL_INTERVAL_S
            if chain.ended if chain else all(one.ended for one in watched):
                return
            left_ms = int(1000 * min(ends - time.monotonic(), bus.BLOCK_MS / 1000))
            news = source.read(after, block_ms=max(1, left_ms))
            away_since = 0.0
        except BrokerUnavailable:
            away_since = away_since or time.monotonic()
            if timeout_s is None and time.monotonic() - away_since > BROKER_TIMEOUT_S:
                raise
            source, news, query_at = None, [], 0.0
            if _have_ended(watched, elsewhere) and not chain:
                return
            time.sleep(RETRY_S)
        for event in news:
            after = event.id
            mine = {one.dispatch_id: one for one in watched}
            of_chain = chain is not None and event.fields.get("chain_id") == chain.id
            if _learn(mine, event) or (of_chain and event.fields.get("dispatch_id") not in mine):
                query_at = 0.0
            if of_chain or event.fields.get("dispatch_id") in mine:
                yield event
        if not news:
            yield None
        if time.monotonic() > ends:
            raise _too_late(watched, timeout_s)


def _query(source: WatchSource, watched: list[Watched], chain: WatchedChain | None) -> None:
    if chain and not chain.ended:
        chain.poll(source, watched)
    for one in watched:
        if not one.ended:
            one.poll(source)


def _have_ended(
    watched: Iterable[Watched], elsewhere: Callable[[str], dict[str, Any] | None]
) -> bool:
    """Learn what is known without the broker; True when nothing is open any more."""
    for one in watched:
        record = None if one.ended else elsewhere(one.dispatch_id)
        if record is not None:
            one.update(record)
    return all(one.ended for one in watched)


def _learn(mine: dict[str, Watched], event: BusEvent) -> bool:
    """Take over what an event says; True when a dispatch has ended, or may have, unseen."""
    if event.type == RESYNC:
        return True
    one = mine.get(str(event.fields.get("dispatch_id")))
    if one is None or one.ended:
        return False
    if event.type == "dispatch_failed":
        one.note = f"{event.fields.get('stage')}: {event.fields.get('reason')}"
        if event.fields.get("will_retry"):
            one.state = State.RETRYING
    one.state = _STATE_AFTER.get(event.type, one.state)
    kind, _, state = event.type.partition("_")
    return kind == "dispatch" and state in {ending.value for ending in State if ending.terminal}


def _too_late(watched: Iterable[Watched], timeout_s: float | None) -> StillRunning:
    open_ones = [one for one in watched if not one.ended]
    states = ", ".join(f"{one.agent} is {one.state}" for one in open_ones)
    return StillRunning(
        f"Not ended after {timeout_s:g} s: {states}. It goes on; "
        f"see `fleet queue inspect {open_ones[0].dispatch_id}`."
    )
