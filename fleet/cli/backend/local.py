"""The fleet of this machine's configuration."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from fleet import runtime
from fleet.auth import tokens
from fleet.cli.backend.protocol import Record
from fleet.cli.live_text import LiveTexts
from fleet.cli.output import note
from fleet.cli.waiting import StoreSource, Watched
from fleet.config.settings import load
from fleet.errors import BrokerUnavailable, Unknown
from fleet.formats.since import parse_since
from fleet.intake.plan_document import plan_document
from fleet.intake.resend import new_event, read_old
from fleet.intake.spool.drainer import has_drainer
from fleet.intake.spool.query import query
from fleet.ledger import Accepted, bus, ids, operations, parents, views
from fleet.ledger.bus import BusEvent
from fleet.ledger.dead_letters import NO_LIMIT, Filter, Replayed, replay_some
from fleet.ledger.views import Page
from fleet.ops import agents as agents_table
from fleet.ops import health
from fleet.ops.alerts import listing, silences
from fleet.runtime import Runtime
from fleet.system.data_dir_lock import is_up
from routing import Event, Verdict, decide
from routing.event import SOURCE_DEFAULT

#: How long a send in an outage waits for an API that starts again.
DRAINER_S = 10.0
POLL_INTERVAL_S = 0.1


class LocalBackend:
    """A `Backend`, by the functions that the API calls, too."""

    def __init__(self) -> None:
        self._spools = False  #: True once `_spool_where_drained` has been called

    # Events

    def newest(self) -> str:
        """The newest id of the bus; empty while the broker is away and this machine spools."""
        self._spool_where_drained()
        try:
            return bus.last_id(runtime.current().store)
        except BrokerUnavailable:
            if not has_drainer(runtime.current().spool):
                raise
            return ""

    def send(self, raw: Any) -> Accepted:
        """Accept an event, into the spool where that is drained and the broker is away."""
        self._spool_where_drained()
        return runtime.current().intake.accept(raw)

    def connect(self) -> StoreSource:
        """Open a store."""
        return StoreSource(runtime.current().connect())

    def elsewhere(self, dispatch_id: str) -> Record | None:
        """The record of a dispatch that ran from the spool."""
        return query(runtime.current().spool, dispatch_id, content=True)

    def live_texts(self, watched: Sequence[Watched]) -> LiveTexts:
        """Listen through the store."""
        return LiveTexts(runtime.current().connect, watched)

    def route(self, raw: Any) -> Record:
        """The plan of an event; needs no broker."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        settings = load()
        rules = settings.rules()
        plan = decide(Event.parse(raw, new_id="dry-run", now=now, lanes=rules.lanes), rules)
        return plan_document(settings, plan)

    def _spool_where_drained(self) -> None:
        """Let this process spool where a drainer imports the spool.

        In an outage the API that drains may be starting again, too: wait for it, or for the end.
        """
        if self._spools:
            return
        self._spools = True
        until = time.monotonic() + DRAINER_S
        while not has_drainer(runtime.current().spool):
            if time.monotonic() > until or not _in_outage():
                return
            time.sleep(POLL_INTERVAL_S)
        runtime.set_current(Runtime(load(), guarded=True, spools=True, got_in=False))

    # The bus

    def stored_events(self, after: str) -> Iterator[BusEvent]:
        """The stored entries, up to the one that was the newest at the start."""
        store = runtime.current().store
        end = bus.order(bus.last_id(store))
        while bus.order(after) < end:
            chunk = bus.read(store, after)
            if not chunk:
                return
            for event in chunk:
                if bus.order(event.id) > end:
                    return
                yield event
            after = chunk[-1].id

    def is_trimmed(self, since: str) -> bool:
        """True when entries right after `since` are no longer kept."""
        return bus.is_trimmed(runtime.current().store, since)

    # Dispatches

    def dispatch(self, dispatch_id: str, *, content: bool) -> Record | None:
        """One dispatch, by its id or the beginning of it."""
        try:
            return views.get(runtime.current().store, self.whole_id(dispatch_id), content=content)
        except Unknown:
            return None

    def whole_id(self, given: str) -> str:
        """The id of the dispatch that begins with `given`."""
        return ids.find_dispatch(runtime.current().store, given)

    def event(
        self, event_id: str, source: str | None, sent_by: str | None, *, content: bool
    ) -> Record | None:
        """One event, by its id or the beginning of it."""
        store, whole = runtime.current().store, source or SOURCE_DEFAULT
        who = sent_by
        if who is None:
            who = parents.find(store, event_id, whole, tokens.senders(store))
        if who is not None and (event := parents.get(store, event_id, whole, who, content=content)):
            return event
        found = ids.find_event(store, event_id, source=source, sent_by=sent_by)
        if found is None:
            return None
        return parents.get(store, found.event_id, found.source, found.sent_by, content=content)

    def dispatches(
        self, agent: str | None, states: Sequence[str], limit: int, cursor: str | None = None
    ) -> Page:
        """Dispatches, newest first."""
        store = runtime.current().store
        if agent is not None:
            operations.agents_with_work(store, load(), agent)
        return views.find(store, agent=agent, states=states, limit=limit, cursor=cursor)

    def counts(self, agent: str | None) -> Mapping[str, Record]:
        """The counts of each agent, or of the named one."""
        store = runtime.current().store
        return views.counts(store, operations.agents_with_work(store, load(), agent))

    def cancel(self, dispatch_id: str, reason: str, *, now: bool) -> str:
        """Cancel a dispatch."""
        return operations.cancel(runtime.current().ledger, load(), dispatch_id, reason, now=now)

    def replay(self, dispatch_id: str) -> str:
        """Try a retrying or a dead dispatch again."""
        return operations.replay(runtime.current().ledger, load(), dispatch_id)

    def resend(
        self,
        dispatch_id: str,
        changes: Mapping[str, Any],
        hops: int | str | None,
        new_id: str | None,
    ) -> Accepted:
        """Send the event of a dispatch again, as a new one with `changes`."""
        raw = new_event(read_old(runtime.current().store, dispatch_id), changes, hops=hops)
        return runtime.current().intake.accept(raw, new_id=new_id, resent_from=dispatch_id)

    def replay_dead_letters(
        self, agent: str | None, since: str | None, reason: str, limit: int | None
    ) -> Replayed:
        """Replay dead letters, the oldest first."""
        ledger, settings = runtime.current().ledger, load()
        operations.agents_with_work(ledger.store, settings, agent)
        since_ms = parse_since(since, ledger.store.clock.now_ms()) if since else 0.0
        chosen = Filter(agent=agent, since_ms=since_ms, reason=reason)
        return replay_some(ledger, settings, chosen, limit or NO_LIMIT)

    def decide(
        self,
        dispatch_id: str,
        verdict: Literal[Verdict.APPROVE, Verdict.REJECT],
        by: str,
        reason: str,
    ) -> tuple[str, str]:
        """Decide a parked dispatch in the name of `by`."""
        ledger = runtime.current().ledger
        state = operations.decide(ledger, load(), dispatch_id, verdict, by=by, reason=reason)
        return state, by

    def cancel_waiting(self, agent: str, reason: str) -> int:
        """Cancel everything that waits for an agent."""
        operations.agents_with_work(runtime.current().store, load(), agent)
        return operations.drain(runtime.current().ledger, load(), agent, reason)

    def move(self, old: str, new: str) -> Mapping[str, int]:
        """Give what waits for `old` to `new`."""
        return operations.reassign(runtime.current().ledger, load(), old, new)

    def purge(self) -> int:
        """Forget every dead letter."""
        return operations.purge(runtime.current().ledger, load())

    # Agents

    def agents(self, names: Sequence[str] = ()) -> list[Record]:
        """The rows of all agents with work or configured, or of these."""
        store, settings = runtime.current().store, load()
        there = names or operations.agents_with_work(store, settings, None)
        return agents_table.rows(store, settings, there)

    def agent(self, name: str) -> Record:
        """One configured agent."""
        operations.known_agents(load(), name)
        return agents_table.rows(runtime.current().store, load(), [name])[0]

    def switch(self, name: str | None, *, paused: bool) -> list[Record]:
        """Pause or resume an agent, or all."""
        change = operations.pause if paused else operations.resume
        return [
            {"agent": agent, "changed": change(runtime.current().ledger, agent)}
            for agent in operations.known_agents(load(), name)
        ]

    # The fleet

    def health(self) -> Record:
        """The health document."""
        return health.document(runtime.current())

    def alerts(self, *, past: bool) -> Record:
        """The alerts; while the broker is away those of this machine, which say most about that."""
        try:
            found = listing.read(runtime.current().store, load())
        except BrokerUnavailable as error:
            note(f"fleet: {str(error).rstrip('.')}. Only the alerts of this machine are shown.")
            found = listing.Alerts.of_machine(load().data_dir)
        return found.to_wire(lambda _: True, past=past)

    def silence_alert(self, which: str, for_s: float, by: str, comment: str) -> Record:
        """Silence an alert."""
        target = self._alert(which)
        silences.silence(runtime.current().store, target, for_s=for_s, by=by, comment=comment)
        return target.marked("silenced", by)

    def unsilence_alert(self, which: str) -> Record:
        """End a silence."""
        target = self._alert(which)
        silences.unsilence(runtime.current().store, target)
        return target.marked("unsilenced")

    def acknowledge_alert(self, which: str, by: str, comment: str) -> Record:
        """Acknowledge an open alert."""
        target = self._alert(which)
        silences.acknowledge(runtime.current().store, target, by=by, comment=comment)
        return target.marked("acknowledged", by)

    def _alert(self, which: str) -> silences.AlertTarget:
        try:
            found = listing.read(runtime.current().store, load())
        except BrokerUnavailable as error:
            # The alerts of this machine can be marked all the same.
            targets = listing.Alerts.of_machine(load().data_dir).targets()
            with suppress(Unknown):
                target = silences.resolve(which, targets)
                if target.folder is not None:
                    return target
            raise error from None
        return silences.resolve(which, found.targets())

    def tokens(self) -> list[Record]:
        """The tokens, newest first."""
        stored = tokens.read_all(runtime.current().store).values()
        return [tokens.shown(one) for one in sorted(stored, key=lambda one: -one.created_ms)]

    def create_token(
        self, name: str, scopes: Sequence[str], rate_per_s: float | None, body_bytes: int | None
    ) -> tuple[Record, str, bool]:
        """Make a token."""
        settings = load()
        names = [*settings.agents, *settings.people()]
        checked = tokens.checked_scopes(scopes, names, settings.mcp.tools)
        store = runtime.current().store
        first = not tokens.read_all(store)
        made, text = tokens.create(
            store, name, checked, rate_per_s=rate_per_s, body_bytes=body_bytes
        )
        return tokens.shown(made), text, first

    def revoke_token(self, which: str) -> list[tuple[str, str]]:
        """Revoke tokens."""
        return [(one.id, one.name) for one in tokens.revoke(runtime.current().store, which)]


def _in_outage() -> bool:
    """True while events wait in the spool, or `fleet up` runs here without its broker."""
    current = runtime.current()
    if current.spool.holds:
        return True
    if not is_up(current.settings.data_dir):
        return False
    try:
        bus.last_id(current.unguarded_store)
    except BrokerUnavailable:
        return True
    return False
