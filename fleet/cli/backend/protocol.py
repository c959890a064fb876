"""The operations that commands are made of. Each raises FleetError or RoutingError.

`LocalBackend` works on the store, as this machine's configuration says; `RemoteBackend` on the HTTP
API of a fleet elsewhere, within the scopes of its token.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

from fleet.cli.waiting import Watched, WatchSource
from fleet.ledger import Accepted
from fleet.ledger.bus import BusEvent
from fleet.ledger.dead_letters import Replayed
from fleet.ledger.views import Page
from routing import Verdict

Record = dict[str, Any]


class LiveView(Protocol):
    """The live text of dispatches that are waited for."""

    def tail(self, dispatch_id: str) -> str:
        """The end of what a dispatch has said; empty when it has said nothing or has ended."""


class Backend(Protocol):
    """One fleet."""

    # Events

    def newest(self) -> str:
        """The newest id of the bus, read before an event is sent that is waited for.

        Empty while the broker is away and the event will be kept all the same.
        """

    def send(self, raw: Any) -> Accepted:
        """Accept an event."""

    def connect(self) -> WatchSource:
        """Open what `watch` asks; raises BrokerUnavailable while it is away."""

    def elsewhere(self, dispatch_id: str) -> Record | None:
        """The record of a dispatch that ended although the broker is away."""

    def live_texts(self, watched: Sequence[Watched]) -> AbstractContextManager[LiveView]:
        """Listen to `watched`, and to what is added to it."""

    def route(self, raw: Any) -> Record:
        """The plan of an event; nothing is kept."""

    # The bus

    def stored_events(self, after: str) -> Iterator[BusEvent]:
        """The stored entries after `after`, up to the newest one of now."""

    def is_trimmed(self, since: str) -> bool:
        """True when entries right after `since` are no longer kept."""

    # Dispatches

    def whole_id(self, given: str) -> str:
        """The id of the dispatch that begins with `given`. Raises Unknown and Ambiguous."""

    def dispatch(self, dispatch_id: str, *, content: bool) -> Record | None:
        """One dispatch, by its id or the beginning of it; None where it is not known."""

    def event(
        self, event_id: str, source: str | None, sent_by: str | None, *, content: bool
    ) -> Record | None:
        """One event, by its id or the beginning of it; None where it is not known."""

    def dispatches(
        self, agent: str | None, states: Sequence[str], limit: int, cursor: str | None = None
    ) -> Page:
        """Dispatches, newest first. Raises Unknown for an agent that never was."""

    def counts(self, agent: str | None) -> Mapping[str, Record]:
        """The counts of each agent that has any, or of the named one."""

    def cancel(self, dispatch_id: str, reason: str, *, now: bool) -> str:
        """Cancel a dispatch; its state now."""

    def replay(self, dispatch_id: str) -> str:
        """Try a retrying or a dead dispatch again; its state now."""

    def resend(
        self,
        dispatch_id: str,
        changes: Mapping[str, Any],
        hops: int | str | None,
        new_id: str | None,
    ) -> Accepted:
        """Send the event of a dispatch again, as a new one with `changes`."""

    def replay_dead_letters(
        self, agent: str | None, since: str | None, reason: str, limit: int | None
    ) -> Replayed:
        """Replay the dead letters of which all of this holds, `limit` at most."""

    def decide(
        self,
        dispatch_id: str,
        verdict: Literal[Verdict.APPROVE, Verdict.REJECT],
        by: str,
        reason: str,
    ) -> tuple[str, str]:
        """Decide a parked dispatch; its state now, and the name that it was decided in."""

    def cancel_waiting(self, agent: str, reason: str) -> int:
        """Cancel everything that waits for an agent; how many."""

    def move(self, old: str, new: str) -> Mapping[str, int]:
        """Give what waits for `old` to `new`; how many in each state."""

    def purge(self) -> int:
        """Forget every dead letter; how many."""

    # Agents

    def agents(self, names: Sequence[str] = ()) -> list[Record]:
        """The rows of all agents with work or configured, or of these."""

    def agent(self, name: str) -> Record:
        """One configured agent, with what is configured of its turns."""

    def switch(self, name: str | None, *, paused: bool) -> list[Record]:
        """Pause or resume an agent, or all; of each whether that changed it."""

    # The fleet

    def health(self) -> Record:
        """The health document."""

    def alerts(self, *, past: bool) -> Record:
        """The document of the alerts; with `past` those that are over, too."""

    def silence_alert(self, which: str, for_s: float, by: str, comment: str) -> Record:
        """Silence an alert, or all of a name; its id, name and state, and who did it."""

    def unsilence_alert(self, which: str) -> Record:
        """End a silence."""

    def acknowledge_alert(self, which: str, by: str, comment: str) -> Record:
        """Acknowledge an open alert."""

    def tokens(self) -> list[Record]:
        """The tokens, newest first."""

    def create_token(
        self, name: str, scopes: Sequence[str], rate_per_s: float | None, body_bytes: int | None
    ) -> tuple[Record, str, bool]:
        """Make a token: its record, its text, and whether it is the first."""

    def revoke_token(self, which: str) -> list[tuple[str, str]]:
        """Revoke tokens; id and name of those that were not revoked before."""
