"""The fleet's own tools: whoever calls them gives agents work, and sees what became of it.

An agent's model calls them in its turn, any other program over the Model Context Protocol. What
each may do is in its `Caller`; what it sends is told apart by its `source`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fleet.auth.tokens import Rights
from fleet.config.settings import Settings
from fleet.errors import BrokerUnavailable, FleetError, Forbidden, Refused
from fleet.intake.intake import Intake, MaySend, Sender
from fleet.ledger import State, ValkeyLedger, operations, views
from fleet.ledger.operations import Unknown
from fleet.store import Store, keys
from routing import RoutingError

#: What each tool does to the fleet.
CLASSES: Mapping[str, Literal["read", "write"]] = {
    "queue_dispatch": "write",
    "queue_cancel": "write",
    "queue_status": "read",
    "queue_list": "read",
    "queue_activity": "read",
}
#: What these tools refuse with; each is one sentence for the caller.
REFUSALS = (FleetError, RoutingError)
LIST_MAX = 50
#: So many pages are searched for what a caller may see.
_PAGES_MAX = 20
#: Of a dispatch, what everybody may know who may see it.
_SHOWN = (
    "dispatch_id",
    "agent",
    "state",
    "priority",
    "session",
    "attempt",
    "waiting_for",
    "stage",
    "accepted_at",
    "started_at",
    "ended_at",
    "elapsed_s",
    "error",
)

Known = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCaller:
    """Who calls the tools, and what they may do."""

    name: str  #: for people
    source: str  #: of every event they send
    sent_by: str
    counted_as: str  #: whose dispatches are counted, see `ask.lua`
    per_minute: int  #: so many dispatches
    may_send: MaySend
    rights: Rights  #: to see and to operate
    #: See also the answers of what others have dispatched.
    foreign_answers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolBackend:
    """The fleet as the process sees it. The openers raise BrokerUnavailable or ConfigError."""

    settings: Settings
    store: Callable[[], Store]
    ledger: Callable[[], ValkeyLedger]
    intake: Callable[[], Intake]


class FleetTools:
    """The public methods are the tools: models read their signatures and docstrings.

    They raise REFUSALS.
    """

    def __init__(self, doors: ToolBackend, caller: ToolCaller) -> None:
        self._doors, self._caller = doors, caller

    def queue_dispatch(self, to: str, text: str, session: str | None = None) -> Known:
        """Give other agents work. `to` is an agent's name, '@group', 'all' or 'chain:NAME'.

        Returns at once, with the ids of the dispatches; look for their outcome with queue_status.
        """
        raw: Known = {"to": to, "text": text}
        if session is not None:
            raw["session"] = session
        return self._dispatch(raw)

    def queue_status(self, dispatch_id: str) -> Known:
        """The state of one dispatch; its answer too, where you dispatched it or may read it."""
        record = self._record(dispatch_id)
        self._caller.rights.need_read(record["agent"])
        shown = _shown(record)
        if "answer" in record and (self._caller.foreign_answers or self._is_mine(record)):
            shown["answer"] = record["answer"]
        return shown

    def queue_list(
        self, agent: str | None = None, state: State | None = None, limit: int = 20
    ) -> list[Known]:
        """The newest dispatches, of all agents or one, in any state or one; 50 at most."""
        names = operations.known_agents(self._doors.settings, agent)
        if agent is not None:
            self._caller.rights.need_read(agent)
        found: list[Known] = []
        limit, cursor = max(1, min(limit, LIST_MAX)), None
        for _ in range(_PAGES_MAX):
            page = views.find(
                self._doors.store(),
                agent=None if agent is None else names[0],
                states=() if state is None else (state,),
                limit=limit,
                cursor=cursor,
            )
            found += [row for row in page.dispatches if self._caller.rights.reads(row["agent"])]
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                break
        return [_shown(record) for record in found[:limit]]

    def queue_activity(self) -> dict[str, Known]:
        """What each agent does now: the dispatch it works on, how many wait, whether it is there.

        Look here before you dispatch: a busy agent answers later.
        """
        names = [one for one in self._doors.settings.agents if self._caller.rights.reads(one)]
        found = views.agents(self._doors.store(), names)
        told = ("online", "active", "queued", "paused")
        return {name: {key: row[key] for key in told} for name, row in found.items()}

    def queue_cancel(self, dispatch_id: str, reason: str = "") -> Known:
        """Cancel a dispatch that you made; a running one stops at its next step."""
        mine = self._is_mine(self._record(dispatch_id))
        if not mine and not self._caller.rights.operates:
            raise Forbidden(f"{dispatch_id} was not dispatched by you: you may not cancel it.")
        me, said = self._caller.name, _line(reason)
        why = f"{me}: {said}" if said else f"cancelled by {me}"
        state = operations.cancel(self._doors.ledger(), self._doors.settings, dispatch_id, why)
        return {"dispatch_id": dispatch_id, "state": state}

    def _complete(self, raw: Known) -> Known:
        """What the caller adds to every event: its id, its hops, its trace."""
        return raw

    def _dispatch(self, raw: Known) -> Known:
        event = self._complete({**raw, "source": self._caller.source})
        self._within_rate()
        me = self._caller
        sender = Sender(sent_by=me.sent_by, may=me.may_send, own_source=True)
        answer = self._doors.intake().accept(event, sender)
        return {
            "event_id": answer.event_id,
            "duplicate": answer.duplicate,
            "dispatches": [{"dispatch_id": one, "agent": name} for one, name in answer.dispatches],
        }

    def _within_rate(self) -> None:
        limit = self._caller.per_minute
        try:
            wait_ms = int(self._doors.store().run("ask", self._caller.counted_as, limit))
        except BrokerUnavailable:
            # Nobody can count now. What is kept all the same has the spool's bounds.
            return
        if wait_ms:
            raise Refused(
                f"You have dispatched {limit} times within a minute, and may not more: "
                f"try again in {wait_ms / 1000:.0f} s, or answer without.",
                retry_after_s=wait_ms / 1000,
            )

    def _record(self, dispatch_id: str) -> Known:
        # An id from a model: anything, and part of a key's name.
        known = dispatch_id.isascii() and len(dispatch_id) <= len(keys.dispatch_id("", ""))
        record = views.get(self._doors.store(), dispatch_id, content=True) if known else None
        if record is None:
            raise Unknown(f"There is no dispatch {dispatch_id[:64]!r}; see queue_list.")
        return record

    def _is_mine(self, record: Known) -> bool:
        event = record["event"]
        return isinstance(event, dict) and event.get("source") == self._caller.source


def _line(text: str) -> str:
    """A model's words, as one short line."""
    return "".join(char if char.isprintable() else " " for char in text[:200]).strip()


def _shown(record: Known) -> Known:
    return {name: record[name] for name in _SHOWN if record.get(name) is not None}
