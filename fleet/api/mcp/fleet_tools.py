"""The fleet's own tools, in the name of the token that asks."""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from fleet.api.auth.access import ApiCaller as Asker
from fleet.api.auth.access import caller_of
from fleet.api.mcp import HOPS_HEADER
from fleet.auth.tokens import Token
from fleet.runtime import Runtime
from fleet.tools.fleet_tools import FleetTools, Known, ToolCaller
from fleet.tools.functions import FunctionToolbox, Spec

#: Who calls where no token is asked for.
NOBODY = "api"


def id_of(token: Token | None) -> str:
    """Tells callers apart; a token's name need not be unique."""
    return token.sent_by if token else NOBODY


def specs(runtime: Runtime, scope: Scope) -> list[Spec]:
    """The five tools, as a client is told of them."""
    return list(FunctionToolbox(_Queue(runtime, scope)).specs)


def call(runtime: Runtime, scope: Scope, name: str, arguments: Mapping[str, Any]) -> str:
    """The answer of one of the tools, as JSON. Raises ToolError and `queue_tools.REFUSALS`."""
    only = getattr(_Queue(runtime, scope), name)
    return FunctionToolbox([only]).call(name, arguments)


class _Queue(FleetTools):
    def __init__(self, runtime: Runtime, scope: Scope) -> None:
        asker, self._headers = caller_of(scope), Headers(scope=scope)
        super().__init__(runtime, _caller(asker, runtime.settings.mcp.dispatches_per_minute))

    def queue_dispatch(
        self,
        to: str,
        text: str,
        session: str | None = None,
        id: str | None = None,  # noqa: A002 - what it is called in an event
    ) -> Known:
        """Give agents work. `to` is an agent's name, '@group', 'all' or 'chain:NAME'.

        Returns at once, with the ids of the dispatches; look for their outcome with queue_status.
        The same `id` again is the same work: it is done once, and with another text refused.
        """
        given = {"session": session, "id": id}
        return self._dispatch({"to": to, "text": text, **_without_none(given)})

    def _complete(self, raw: Known) -> Known:
        told = self._headers.get(HOPS_HEADER)
        hops = None if told is None else _next(told)
        trace = self._headers.get("traceparent")
        return {**raw, **_without_none({"hops": hops, "traceparent": trace})}


def _caller(asker: Asker, per_minute: int) -> ToolCaller:
    who = id_of(asker.token)
    return ToolCaller(
        name=asker.token.name if asker.token else NOBODY,
        source=f"mcp:{who}",
        sent_by=asker.sent_by,
        counted_as=who,
        per_minute=per_minute,
        may_send=asker.rights.need_send,
        rights=asker.rights,
        foreign_answers=True,
    )


def _next(hops: str) -> int | str:
    """One hop more; what is no number is left for the event's parser to refuse."""
    number = hops.isascii() and hops.isdecimal() and len(hops) < 9
    return int(hops) + 1 if number else hops


def _without_none(given: Known) -> Known:
    return {name: value for name, value in given.items() if value is not None}
