"""The tool set `queue`: an agent gives other agents work, and sees what became of it.

What it sends came one hop further than what it was told, so `routes.max_hops` ends a loop. An agent
reads the answers of its own dispatches only, and cancels only those.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fleet import context, keys
from fleet.errors import FleetError, Forbidden
from fleet.hops import source_of
from fleet.ledger import State, operations, views
from fleet.ledger.protocol import Accepted
from fleet.turn import Turn
from routing import RoutingError
from tasks.tools.functions import FunctionToolbox
from tasks.tools.toolbox import Spec, ToolError

#: What each tool does to the fleet.
CLASSES: Mapping[str, Literal["read", "write"]] = {
    "queue_dispatch": "write",
    "queue_cancel": "write",
    "queue_status": "read",
    "queue_list": "read",
    "queue_activity": "read",
}
LIST_MAX = 50
#: Of a dispatch, what another agent may know.
_SHOWN = (
    *("dispatch_id", "agent", "state", "priority", "session", "attempt", "waiting_for", "stage"),
    *("accepted_at", "started_at", "ended_at", "elapsed_s", "error"),
)

Known = dict[str, Any]


class QueueToolbox:
    """The fleet's own tools, in the name of the agent whose turn this is."""

    def __init__(self, turn: Turn) -> None:
        self._tools = FunctionToolbox(_Queue(turn))

    @property
    def specs(self) -> Sequence[Spec]:
        """The five tools."""
        return self._tools.specs

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """A JSON object. Raises ToolError with the fleet's own sentence where it refuses."""
        try:
            return self._tools.call(name, arguments)
        except (FleetError, RoutingError) as error:
            raise ToolError(str(error)) from error


class _Queue:
    """The model reads these signatures and docstrings."""

    def __init__(self, turn: Turn) -> None:
        self._turn, self._me = turn, turn.claim.agent

    def queue_dispatch(self, to: str, text: str, session: str | None = None) -> Known:
        """Give other agents work. `to` is an agent's name, '@group', 'all' or 'chain:NAME'.

        Returns at once, with the ids of the dispatches; look for their outcome with queue_status.
        """
        raw: Known = {"to": to, "text": text, "source": source_of(self._me)}
        if session is not None:
            raw["session"] = session
        # A step that is run again, because its worker died before it was journalled, is the same
        # event; another text at its place is another one. A write runs alone, so this is its step.
        said = json.dumps([self._turn.claim.dispatch_id, self._turn.steps, to, text, session])
        raw["id"] = f"tool-{hashlib.sha256(said.encode(errors='replace')).hexdigest()[:32]}"
        if self._turn.event.traceparent:
            raw["traceparent"] = self._turn.event.traceparent
        self._within_rate()
        (answer,) = context.intake().accept_batch([self._turn.event.pass_on(raw)], [self._may])
        if not isinstance(answer, Accepted):
            raise answer
        return {
            "event_id": answer.event_id,
            "duplicate": answer.duplicate,
            "dispatches": [{"dispatch_id": one, "agent": name} for one, name in answer.dispatches],
        }

    def queue_status(self, dispatch_id: str) -> Known:
        """The state of one dispatch; its answer too, where you dispatched it."""
        record = self._record(dispatch_id)
        shown = _shown(record)
        if self._is_mine(record) and "answer" in record:
            shown["answer"] = record["answer"]
        return shown

    def queue_list(
        self, agent: str | None = None, state: State | None = None, limit: int = 20
    ) -> list[Known]:
        """The newest dispatches, of all agents or one, in any state or one; 50 at most."""
        names = operations.known_agents(context.settings(), agent)
        page = views.find(
            context.store(),
            agent=None if agent is None else names[0],
            states=() if state is None else (state,),
            limit=max(1, min(limit, LIST_MAX)),
        )
        return [_shown(record) for record in page.dispatches]

    def queue_activity(self) -> dict[str, Known]:
        """What each agent does now: the dispatch it works on, how many wait, whether it is there.

        Look here before you dispatch: a busy agent answers later.
        """
        found = views.agents(context.store(), list(context.settings().agents))
        told = ("online", "active", "queued", "paused")
        return {name: {key: row[key] for key in told} for name, row in found.items()}

    def queue_cancel(self, dispatch_id: str, reason: str = "") -> Known:
        """Cancel a dispatch that you made; a running one stops at its next step."""
        if not self._is_mine(self._record(dispatch_id)):
            raise Forbidden(f"{dispatch_id} was not dispatched by you: you may not cancel it.")
        why = f"{self._me}: {reason[:200]}" if reason else f"cancelled by {self._me}"
        state = operations.cancel(context.ledger(), context.settings(), dispatch_id, why)
        return {"dispatch_id": dispatch_id, "state": state}

    def _may(self, agent: str) -> None:
        allowed = self._turn.agent.dispatch_to
        if allowed is not None and agent not in allowed:
            raise Forbidden(
                f"{self._me} may not dispatch to {agent}; it may to {', '.join(allowed) or 'none'}."
            )

    def _within_rate(self) -> None:
        limit = self._turn.agent.dispatches_per_minute
        wait_ms = int(context.store().run("ask", self._me, limit))
        if wait_ms:
            raise ToolError(
                f"You have dispatched {limit} times within a minute, and may not more: "
                f"try again in {wait_ms / 1000:.0f} s, or answer without."
            )

    def _record(self, dispatch_id: str) -> Known:
        # An id from a model: anything, and part of a key's name.
        known = dispatch_id.isascii() and len(dispatch_id) <= len(keys.dispatch_id("", ""))
        record = views.get(context.store(), dispatch_id, content=True) if known else None
        if record is None:
            raise ToolError(f"There is no dispatch {dispatch_id[:64]!r}; see queue_list.")
        return record

    def _is_mine(self, record: Known) -> bool:
        event = record["event"]
        return isinstance(event, dict) and event.get("source") == source_of(self._me)


def _shown(record: Known) -> Known:
    return {name: record[name] for name in _SHOWN if record.get(name) is not None}
