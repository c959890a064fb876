"""The tool set `queue`: an agent gives other agents work, and follows that work.

An event that it sends has one hop more than its own, so `routes.max_hops` ends a loop. An agent
reads the answers of its own dispatches only, and cancels only those.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fleet import runtime
from fleet.auth.tokens import EVERYONE, Rights
from fleet.errors import Forbidden
from fleet.formats.hop_count import source_of
from fleet.tools.fleet_tools import REFUSALS, FleetTools, Record, ToolBackend, ToolCaller
from fleet.tools.functions import FunctionToolbox, Spec, ToolError
from fleet.turn.turn import Turn
from routing.event import SENT_BY_FLEET


class QueueToolbox:
    """The fleet's own tools, in the name of the turn's agent."""

    def __init__(self, turn: Turn) -> None:
        self._tools = FunctionToolbox(_Queue(turn))

    @property
    def specs(self) -> Sequence[Spec]:
        """The five tools."""
        return self._tools.specs

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """A JSON object. Raises ToolError with the fleet's own sentence for a refusal."""
        try:
            return self._tools.call(name, arguments)
        except REFUSALS as error:
            raise ToolError(str(error)) from error


class _Queue(FleetTools):
    def __init__(self, turn: Turn) -> None:
        self._turn, me = turn, turn.claim.agent
        backend = ToolBackend(
            settings=runtime.settings(),
            store=runtime.store,
            ledger=runtime.ledger,
            intake=runtime.intake,
        )
        caller = ToolCaller(
            name=me,
            source=source_of(me),
            sent_by=SENT_BY_FLEET,
            counted_as=me,
            per_minute=turn.agent.dispatches_per_minute,
            may_send=self._check_allowed,
            rights=Rights(frozenset({f"read:{EVERYONE}"})),
            foreign_answers=False,
        )
        super().__init__(backend, caller)

    def _complete(self, raw: Record) -> Record:
        # A step that runs again, because its worker died before the journal had it, sends the same
        # event. Another text at its place is another event. A write runs alone, so the number of
        # started steps is its own.
        step = (self._turn.claim.dispatch_id, self._turn.steps)
        identity = json.dumps([*step, raw["to"], raw["text"], raw.get("session")])
        raw["id"] = f"tool-{hashlib.sha256(identity.encode(errors='replace')).hexdigest()[:32]}"
        if self._turn.event.traceparent:
            raw["traceparent"] = self._turn.event.traceparent
        return self._turn.event.forward(raw)

    def _check_allowed(self, agent: str) -> None:
        allowed = self._turn.agent.dispatch_to
        if allowed is not None and agent not in allowed:
            me = self._turn.claim.agent
            raise Forbidden(
                f"{me} may not dispatch to {agent}; allowed: {', '.join(allowed) or 'none'}."
            )
