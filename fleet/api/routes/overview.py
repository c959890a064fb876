"""Views of the whole fleet for the console: sessions, targets, and sums over time."""

from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import rights_of
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import (
    check_names,
    choices,
    flag,
    number,
    readable_choices,
)
from fleet.api.request.problems import bad_parameter
from fleet.auth.tokens import EVERYONE, Rights
from fleet.ledger import sessions, sums
from fleet.runtime import Runtime
from routing.chains import Chain
from routing.event import LANES
from routing.rules import ALL_HANDS, CHAIN_MARK

SPAN_DEFAULT: sums.Span = "hour"


class Overview:
    """The endpoints `/sessions`, `/targets` and `/history`."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def sessions(self, request: Request) -> Response:
        """The conversations of late, last active first; with `content=1` their newest line."""
        query, rights = request.query_params, rights_of(request.scope)
        check_names(query, "agent", "limit", "cursor", "content")
        agent = self._agent(query, rights)
        limit = number(query, "limit", 50, 1, sessions.SESSIONS_MAX)
        content, cursor = flag(query, "content"), query.get("cursor")
        if cursor is not None and not sessions.is_cursor(cursor):
            raise bad_parameter("cursor", "must be the `cursor` of the page before")
        page = await self._reads.run(
            lambda: sessions.recent(
                self._runtime.store,
                content=content,
                reads=rights.reads,
                agent=agent,
                limit=limit,
                cursor=cursor,
            )
        )
        return JSONResponse({"sessions": page.sessions, "cursor": page.cursor})

    async def targets(self, request: Request) -> Response:
        """The targets that the caller may send to, the lanes, and the chains that it may see."""
        check_names(request.query_params)
        settings, rights = self._runtime.settings, rights_of(request.scope)
        agents = [name for name in settings.agents if rights.sends(name)]
        groups = {
            f"@{name}": members
            for name, members in settings.routes.groups.items()
            if all(map(rights.sends, members))
        }
        chains = settings.routing_chains()
        sent = [name for name, chain in chains.items() if all(map(rights.sends, chain.agents))]
        everybody = [ALL_HANDS] if all(map(rights.sends, settings.agents)) else []
        targets = [
            *({"target": name, "kind": "agent"} for name in agents),
            *({"target": name, "kind": "group"} for name in groups),
            *({"target": name, "kind": "all"} for name in everybody),
            *({"target": f"{CHAIN_MARK}{name}", "kind": "chain"} for name in sent),
        ]
        return JSONResponse(
            {
                "targets": targets,
                "lanes": {**LANES, **settings.lanes},
                "chains": [_chain(one, rights) for one in chains.values() if _seen(one, rights)],
            }
        )

    async def history(self, request: Request) -> Response:
        """Sums over the last hour, day or week, of an agent or of the whole fleet.

        The whole is for callers who may see every agent.
        """
        query, rights = request.query_params, rights_of(request.scope)
        check_names(query, "span", "agent")
        agent = self._agent(query, rights)
        if agent is None:
            rights.need_read(EVERYONE)
        chosen = choices(query, "span", sums.SPANS)
        if len(chosen) > 1:
            raise bad_parameter("span", "must be given once")
        span = next((span for span in sums.SPANS if span in chosen), SPAN_DEFAULT)
        store = self._runtime.store
        return JSONResponse(
            await self._reads.run(
                lambda: sums.read_agent(store, span, agent) if agent else sums.read(store, span)
            )
        )

    def _agent(self, query: QueryParams, rights: Rights) -> str | None:
        """The one agent that is asked for, or None."""
        agents = readable_choices(query, "agent", self._runtime.settings.agents, rights)
        if len(agents) > 1:
            raise bad_parameter("agent", "must be given once")
        return next(iter(agents), None)


def _seen(chain: Chain, rights: Rights) -> bool:
    return any(map(rights.reads, (*chain.agents, *chain.people)))


def _chain(chain: Chain, rights: Rights) -> dict[str, Any]:
    return {
        "name": chain.name,
        "on_failure": chain.on_failure,
        "on_silence": str(chain.on_silence),
        "max_revisions": chain.max_revisions,
        "stages": [
            {
                "name": stage.name,
                "person": stage.person or None,
                "members": [name for name in stage.members if rights.reads(name)],
                "quorum": stage.quorum,
                "deadline_s": stage.deadline_s,
            }
            for stage in chain.stages
        ],
    }
