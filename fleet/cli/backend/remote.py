"""A fleet elsewhere, by its HTTP API and within the scopes of a token."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from fleet.cli.backend.protocol import Record
from fleet.cli.backend.remote_live_text import RemoteLiveTexts
from fleet.cli.backend.remote_source import RemoteSource, event_of
from fleet.cli.waiting import Watched
from fleet.client.fleet import Fleet
from fleet.errors import Unknown
from fleet.ledger import Accepted, bus, ids
from fleet.ledger.bus import BusEvent
from fleet.ledger.dead_letters import BATCH_MAX, NO_LIMIT, Replayed
from fleet.ledger.views import Page
from routing import Verdict
from routing.rules import ALL_HANDS

_COUNTED = ("states", "unverified", "oldest_s")


class RemoteBackend:
    """A `Backend`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._source = RemoteSource(fleet)

    # Events

    def newest(self) -> str:
        """The place of the bus now; its connection stays, so nothing that follows is missed."""
        return self._source.last_id()

    def send(self, raw: Any) -> Accepted:
        """Send an event, again and again under its one id while the fleet does not answer."""
        sent = self._fleet.send_event(raw)
        return Accepted(
            event_id=sent.event_id,
            dispatches=sent.dispatches,
            duplicate=sent.duplicate,
            chain=sent.chain,
            chain_id=sent.chain_id,
        )

    def connect(self) -> RemoteSource:
        """The connection to the bus, made anew at its next use if it broke."""
        return self._source

    def elsewhere(self, dispatch_id: str) -> Record | None:
        """Nothing: only the API knows."""
        return None

    def live_texts(self, watched: Sequence[Watched]) -> RemoteLiveTexts:
        """Listen over HTTP."""
        return RemoteLiveTexts(self._fleet, watched)

    def route(self, raw: Any) -> Record:
        """The plan of an event."""
        return self._fleet.route(raw)

    # The bus

    def stored_events(self, after: str) -> Iterator[BusEvent]:
        """The stored entries, up to the one that was the newest at the start."""
        page = self._fleet.bus_page(after)
        end = bus.order(page["last"])
        while True:
            for entry in page["entries"]:
                if bus.order(entry["id"]) > end:
                    return
                yield event_of(entry)
            place = page["next"]
            if place is None or bus.order(place) >= end:
                return
            page = self._fleet.bus_page(place)

    def is_trimmed(self, since: str) -> bool:
        """True when entries right after `since` are no longer kept."""
        return bool(self._fleet.bus_page(since, limit=1)["trimmed"])

    # Dispatches

    def whole_id(self, given: str) -> str:
        """The id of the dispatch that begins with `given`; the fleet finds it, too."""
        if len(given) >= ids.WHOLE_CHARS:
            return given
        try:
            return str(self._fleet.dispatch(given)["dispatch_id"])
        except Unknown:
            # A token that may send and operate, and not read, may still mean one.
            return given

    def dispatch(self, dispatch_id: str, *, content: bool) -> Record | None:
        """One dispatch."""
        try:
            return self._fleet.dispatch(dispatch_id, content=content)
        except Unknown:
            return None

    def event(
        self, event_id: str, source: str | None, sent_by: str | None, *, content: bool
    ) -> Record | None:
        """One event."""
        try:
            return self._fleet.event(event_id, source=source, sent_by=sent_by, content=content)
        except Unknown:
            return None

    def dispatches(
        self, agent: str | None, states: Sequence[str], limit: int, cursor: str | None = None
    ) -> Page:
        """Dispatches, newest first."""
        found, place = self._fleet.dispatches(
            agent=agent, states=states, limit=limit, cursor=cursor
        )
        return Page(dispatches=found, cursor=place)

    def counts(self, agent: str | None) -> Mapping[str, Record]:
        """The counts of each agent, or of the named one."""
        rows = self._fleet.agents() if agent is None else [self._fleet.agent(agent)]
        return {row["agent"]: {name: row[name] for name in _COUNTED} for row in rows}

    def cancel(self, dispatch_id: str, reason: str, *, now: bool) -> str:
        """Cancel a dispatch."""
        return self._fleet.cancel(dispatch_id, reason, now=now)

    def replay(self, dispatch_id: str) -> str:
        """Try a retrying or a dead dispatch again."""
        return self._fleet.retry(dispatch_id)

    def resend(
        self,
        dispatch_id: str,
        changes: Mapping[str, Any],
        hops: int | str | None,
        new_id: str | None,
    ) -> Accepted:
        """Send the event of a dispatch again, as a new one with `changes`."""
        passed = {} if hops is None else {"hops": hops}
        sent = self._fleet.resend(dispatch_id, {**changes, **passed}, idempotency_key=new_id)
        return Accepted(
            event_id=sent["event_id"],
            dispatches=tuple((one["dispatch_id"], one["agent"]) for one in sent["dispatches"]),
            duplicate=sent["duplicate"],
            chain=sent.get("chain"),
            chain_id=sent.get("chain_id"),
        )

    def replay_dead_letters(
        self, agent: str | None, since: str | None, reason: str, limit: int | None
    ) -> Replayed:
        """Replay dead letters, the oldest first; batch by batch, as far as that gets on."""
        queued: list[str] = []
        refused: dict[str, str] = {}
        left = limit or NO_LIMIT
        while left > 0:
            batch = min(left, BATCH_MAX)
            done = self._fleet.replay_dead_letters(agent, since, reason, batch)
            queued += done["replayed"]
            refused |= {one["dispatch_id"]: one["error"] for one in done["refused"]}
            left -= batch
            if not (done["more"] and done["replayed"]):
                break
        return Replayed(queued, list(refused.items()), more=False)

    def decide(
        self,
        dispatch_id: str,
        verdict: Literal[Verdict.APPROVE, Verdict.REJECT],
        by: str,
        reason: str,
    ) -> tuple[str, str]:
        """Decide a parked dispatch; with a token in the token's name."""
        word: Literal["approve", "reject"] = "approve" if verdict is Verdict.APPROVE else "reject"
        answer = self._fleet.decide(dispatch_id, word, reason, by)
        return answer["state"], answer["by"]

    def cancel_waiting(self, agent: str, reason: str) -> int:
        """Cancel everything that waits for an agent."""
        return self._fleet.cancel_waiting(agent, reason)

    def move(self, old: str, new: str) -> Mapping[str, int]:
        """Give what waits for `old` to `new`."""
        return self._fleet.move_waiting(old, new)

    def purge(self) -> int:
        """Forget every dead letter."""
        return self._fleet.purge_dead_letters()

    # Agents

    def agents(self, names: Sequence[str] = ()) -> list[Record]:
        """The rows of the agents that the token may see, or of these."""
        return self._fleet.agents(names)

    def agent(self, name: str) -> Record:
        """One configured agent."""
        row = self._fleet.agent(name)
        if row["status"] == "removed":
            raise Unknown(f"There is no agent {name[:64]!r} in this fleet.")
        return row

    def switch(self, name: str | None, *, paused: bool) -> list[Record]:
        """Pause or resume an agent, or all."""
        change = self._fleet.pause if paused else self._fleet.resume
        rows = change(ALL_HANDS if name is None else name)
        return [{"agent": row["agent"], "changed": row["changed"]} for row in rows]

    # The fleet

    def health(self) -> Record:
        """The health document of what the token may see."""
        return self._fleet.health()

    def alerts(self, *, past: bool) -> Record:
        """The alerts that the token may see."""
        return self._fleet.alerts.find(past=past)

    def silence_alert(self, which: str, for_s: float, by: str, comment: str) -> Record:
        """Silence an alert; with a token in the token's name."""
        return self._fleet.alerts.silence(which, for_s, by, comment)

    def unsilence_alert(self, which: str) -> Record:
        """End a silence."""
        return self._fleet.alerts.unsilence(which)

    def acknowledge_alert(self, which: str, by: str, comment: str) -> Record:
        """Acknowledge an open alert; with a token in the token's name."""
        return self._fleet.alerts.acknowledge(which, by, comment)

    def tokens(self) -> list[Record]:
        """The tokens, newest first."""
        return self._fleet.tokens()

    def create_token(
        self, name: str, scopes: Sequence[str], rate_per_s: float | None, body_bytes: int | None
    ) -> tuple[Record, str, bool]:
        """Make a token."""
        made = self._fleet.create_token(name, scopes, rate_per_s=rate_per_s, body_bytes=body_bytes)
        # The first one is made on the fleet's machine.
        return made, made.pop("token"), False

    def revoke_token(self, which: str) -> list[tuple[str, str]]:
        """Revoke tokens."""
        return [(one["id"], one["name"]) for one in self._fleet.revoke_token(which)]
