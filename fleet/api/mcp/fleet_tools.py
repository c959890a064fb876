"""The fleet's own tools, in the name of the calling token."""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from fleet.api.auth.access import ApiCaller, caller_of
from fleet.api.backend import Backend
from fleet.api.mcp import HOPS_HEADER
from fleet.auth.tokens import Token
from fleet.tools.fleet_tools import FleetTools, Record, ToolBackend, ToolCaller
from fleet.tools.functions import FunctionToolbox, Spec

#: The caller's name where no token is needed.
ANONYMOUS = "api"


def caller_id(token: Token | None) -> str:
    """A unique name of a caller; a token's name need not be unique."""
    return token.sent_by if token else ANONYMOUS


def specs(backend: Backend, scope: Scope) -> list[Spec]:
    """The specifications of the five tools."""
    return list(FunctionToolbox(_TokenTools(backend, scope)).specs)


def call(backend: Backend, scope: Scope, name: str, arguments: Mapping[str, Any]) -> str:
    """Call a tool; its answer is JSON. Raises ToolError and `fleet.tools.fleet_tools.REFUSALS`."""
    tool = getattr(_TokenTools(backend, scope), name)
    return FunctionToolbox([tool]).call(name, arguments)


class _TokenTools(FleetTools):
    def __init__(self, backend: Backend, scope: Scope) -> None:
        caller, self._headers = caller_of(scope), Headers(scope=scope)
        tools = ToolBackend(
            settings=backend.settings,
            store=backend.store,
            ledger=backend.ledger,
            intake=backend.intake,
        )
        super().__init__(tools, _caller(caller, backend.settings.mcp.dispatches_per_minute))

    def queue_dispatch(
        self,
        to: str,
        text: str,
        session: str | None = None,
        id: str | None = None,  # noqa: A002 - its name in an event
    ) -> Record:
        """Give agents work. `to` is an agent's name, '@group', 'all' or 'chain:NAME'.

        Returns at once, with the ids of the dispatches; look for their outcome with queue_status.
        The same `id` again is the same work: it is done once, and with another text refused.
        """
        given = {"session": session, "id": id}
        return self._dispatch({"to": to, "text": text, **_without_none(given)})

    def _complete(self, raw: Record) -> Record:
        header = self._headers.get(HOPS_HEADER)
        hops = None if header is None else _next(header)
        trace = self._headers.get("traceparent")
        return {**raw, **_without_none({"hops": hops, "traceparent": trace})}


def _caller(caller: ApiCaller, per_minute: int) -> ToolCaller:
    identity = caller_id(caller.token)
    return ToolCaller(
        name=caller.token.name if caller.token else ANONYMOUS,
        source=f"mcp:{identity}",
        sent_by=caller.sent_by,
        counted_as=identity,
        per_minute=per_minute,
        may_send=caller.rights.need_send,
        rights=caller.rights,
        foreign_answers=True,
    )


def _next(hops: str) -> int | str:
    """One hop more; the event's parser refuses text that is not a number."""
    number = hops.isascii() and hops.isdecimal() and len(hops) < 9
    return int(hops) + 1 if number else hops


def _without_none(given: Record) -> Record:
    return {name: value for name, value in given.items() if value is not None}
