"""The fleet's own tools: they give agents work, and show its outcome.

An agent's model calls them in its turn, any other program over the Model Context Protocol. A
`ToolCaller` holds the rights of a caller; its `source` marks the events that the caller sends.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from fleet.auth.tokens import Rights
from fleet.errors import BrokerUnavailable, FleetError, Forbidden, Refused
from fleet.intake.intake import MaySend, Sender
from fleet.ledger import State, agent_rows, ids, operations, views
from fleet.ledger.operations import Unknown
from fleet.runtime import Runtime
from fleet.store import keys
from fleet.store.calls import AskCall
from routing import RoutingError
from routing.event import SENT_LOCALLY

#: The effect of each tool on the fleet.
CLASSES: Mapping[str, Literal["read", "write"]] = {
    "queue_dispatch": "write",
    "queue_cancel": "write",
    "queue_status": "read",
    "queue_list": "read",
    "queue_activity": "read",
}
#: Errors of these tools; each is one sentence for the caller.
REFUSALS = (FleetError, RoutingError)
LIST_MAX = 50
#: The most pages searched for dispatches that a caller may see.
_PAGES_MAX = 20
#: Fields of a dispatch for every caller that may see it.
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

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCaller:
    """The caller of the tools, and its rights."""

    name: str  #: for people
    source: str  #: of each event it sends
    sent_by: str
    counted_as: str  #: the key of its rate limit, see `ask.lua`
    per_minute: int  #: the most dispatches in a minute
    may_send: MaySend
    rights: Rights  #: to see and to operate
    #: May read the answers of dispatches by other callers too.
    foreign_answers: bool


class FleetTools:
    """The tools are the public methods: models read their signatures and docstrings.

    Each raises REFUSALS.
    """

    def __init__(self, runtime: Runtime, caller: ToolCaller) -> None:
        self._runtime, self._caller = runtime, caller

    def queue_dispatch(self, to: str, text: str, session: str | None = None) -> Record:
        """Give other agents work. `to` is an agent's name, '@group', 'all' or 'chain:NAME'.

        Returns at once, with the ids of the dispatches; look for their outcome with queue_status.
        """
        raw: Record = {"to": to, "text": text}
        if session is not None:
            raw["session"] = session
        return self._dispatch(raw)

    def queue_status(self, dispatch_id: str) -> Record:
        """The state of one dispatch; its answer too, where you dispatched it or may read it."""
        record = self._record(dispatch_id)
        # Only its sender comes here without that right, and is told the scope.
        self._caller.rights.need_read(record["agent"])
        shown = _shown(record)
        if "answer" in record and (self._caller.foreign_answers or self._is_own(record)):
            shown["answer"] = record["answer"]
        return shown

    def queue_list(
        self, agent: str | None = None, state: State | None = None, limit: int = 20
    ) -> list[Record]:
        """The newest dispatches, of all agents or one, in any state or one; 50 at most."""
        if agent is not None:
            self._caller.rights.need_read(agent)
        names = operations.known_agents(self._runtime.settings, agent)
        found: list[Record] = []
        limit, cursor = max(1, min(limit, LIST_MAX)), None
        for _ in range(_PAGES_MAX):
            page = views.find(
                self._runtime.store,
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

    def queue_activity(self) -> dict[str, Record]:
        """The work of each agent now: its dispatch, how many wait, and if it is online.

        Look here before you dispatch: a busy agent answers later.
        """
        names = [name for name in self._runtime.settings.agents if self._caller.rights.reads(name)]
        found = agent_rows.rows(self._runtime.store, names)
        shown = ("online", "active", "queued", "paused")
        return {name: {key: row[key] for key in shown} for name, row in found.items()}

    def queue_cancel(self, dispatch_id: str, reason: str = "") -> Record:
        """Cancel a dispatch that you made; a running one stops at its next step."""
        record = self._record(dispatch_id)
        own, dispatch_id = self._is_own(record), record["dispatch_id"]
        if not (own or self._caller.rights.operates):
            raise Forbidden(f"{dispatch_id} was not dispatched by you: you may not cancel it.")
        caller, given = self._caller.name, _line(reason)
        cause = f"{caller}: {given}" if given else f"cancelled by {caller}"
        ledger, settings = self._runtime.ledger, self._runtime.settings
        state = operations.cancel(ledger, settings, dispatch_id, cause)
        return {"dispatch_id": dispatch_id, "state": state}

    def _complete(self, raw: Record) -> Record:
        """Add the caller's fields to an event: its id, its hops, its trace."""
        return raw

    def _dispatch(self, raw: Record) -> Record:
        event = self._complete({**raw, "source": self._caller.source})
        self._check_rate()
        caller = self._caller
        sender = Sender(sent_by=caller.sent_by, may=caller.may_send, own_source=True)
        answer = self._runtime.intake.accept(event, sender)
        return {
            "event_id": answer.event_id,
            "duplicate": answer.duplicate,
            "dispatches": [
                {"dispatch_id": dispatch_id, "agent": agent}
                for dispatch_id, agent in answer.dispatches
            ],
        }

    def _check_rate(self) -> None:
        limit = self._caller.per_minute
        try:
            call = AskCall(caller=self._caller.counted_as, per_minute=limit)
            wait_ms = self._runtime.store.run(call)
        except BrokerUnavailable:
            return  # not counted while the store is down; the spool has bounds of its own
        if wait_ms:
            raise Refused(
                f"You have reached your limit of {limit} dispatches a minute: "
                f"try again in {wait_ms / 1000:.0f} s, or answer without.",
                retry_after_s=wait_ms / 1000,
            )

    def _record(self, dispatch_id: str) -> Record:
        # A model's id may be any text, and becomes part of a key.
        valid = dispatch_id.isascii() and len(dispatch_id) <= len(keys.dispatch_id("", ""))
        store, record = self._runtime.store, None
        if valid:
            with suppress(Unknown):
                whole = ids.find_dispatch(store, dispatch_id, self._sees)
                record = views.get(store, whole, content=True)
        if record is None or not (
            self._is_own(record) or self._caller.rights.reads(record["agent"])
        ):
            raise Unknown(f"There is no dispatch {dispatch_id[:64]!r} for you; see queue_list.")
        return record

    def _sees(self, agent: str, sent_by: str) -> bool:
        own = sent_by == self._caller.sent_by != SENT_LOCALLY
        return own or self._caller.rights.reads(agent)

    def _is_own(self, record: Record) -> bool:
        # By the sender too, which no event can name: a source is only text.
        made = (record.get("source"), record.get("sent_by", SENT_LOCALLY))
        return made == (self._caller.source, self._caller.sent_by)


def _line(text: str) -> str:
    """A model's text as one short line."""
    return "".join(char if char.isprintable() else " " for char in text[:200]).strip()


def _shown(record: Record) -> Record:
    return {name: record[name] for name in _SHOWN if record.get(name) is not None}
