"""The agents over HTTP: list, get, pause, resume and drain."""

from collections import Counter
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import rights_of
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import check_names, readable_choices
from fleet.auth.tokens import EVERYONE
from fleet.ledger import agent_rows, operations, views
from fleet.ops import agent_settings, agents
from fleet.runtime import Runtime
from routing.rules import ALL_HANDS


class Agents:
    """The endpoints under `/agents`."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def find(self, request: Request) -> Response:
        """All agents that the caller may see, or those named by `agent`, as configured.

        After these the removed ones that still have work.
        """
        check_names(request.query_params, "agent")
        rights = rights_of(request.scope)
        there = await self._there(None)
        chosen = readable_choices(request.query_params, "agent", there, rights)
        names = [name for name in there if name in chosen or (not chosen and rights.reads(name))]
        rows = await self._rows(names)
        if rights.reads_all:
            totals = await self._reads.run(lambda: views.totals(self._runtime.store))
        else:
            totals = dict(sum((Counter(row["states"]) for row in rows), Counter()))
        return JSONResponse({"agents": rows, "totals": totals})

    async def get(self, request: Request) -> Response:
        """One agent."""
        name = request.path_params["agent"]
        rights_of(request.scope).need_read(name)
        (row,) = await self._rows(await self._there(name))
        return JSONResponse(row)

    async def config(self, request: Request) -> Response:
        """The options of an agent that the configuration sets, with secrets masked; for `admin`."""
        rights_of(request.scope).need_admin()
        name = request.path_params["agent"]
        operations.known_agents(self._runtime.settings, name)
        options = agent_settings.masked(self._runtime.settings.agents[name])
        return JSONResponse({"agent": name, "options": options})

    async def pause(self, request: Request) -> Response:
        """Pause an agent, or `all`: it finishes its running turn and starts no other."""
        return JSONResponse({"agents": await self._switch(request, paused=True)})

    async def resume(self, request: Request) -> Response:
        """Resume a paused agent, or `all`."""
        return JSONResponse({"agents": await self._switch(request, paused=False)})

    async def drain(self, request: Request) -> Response:
        """Pause; 200 when no turn runs, 202 while a turn still runs: request it again."""
        changed = await self._switch(request, paused=True)
        names = [row["agent"] for row in changed]
        found = await self._reads.run(lambda: agent_rows.rows(self._runtime.store, names))
        report = [{**row, "active": found[row["agent"]]["active"]} for row in changed]
        running = any(row["active"] for row in report)
        return JSONResponse(
            {"agents": report}, int(HTTPStatus.ACCEPTED if running else HTTPStatus.OK)
        )

    async def _there(self, name: str | None) -> list[str]:
        runtime = self._runtime
        if name in runtime.settings.agents:
            return [str(name)]
        return await self._reads.run(
            lambda: operations.agents_with_work(runtime.store, runtime.settings, name)
        )

    async def _rows(self, names: list[str]) -> list[dict[str, Any]]:
        runtime = self._runtime
        return await self._reads.run(lambda: agents.rows(runtime.store, runtime.settings, names))

    async def _switch(self, request: Request, *, paused: bool) -> list[dict[str, Any]]:
        rights, name = rights_of(request.scope), request.path_params["agent"]
        rights.need_operate()
        rights.need_read(EVERYONE if name == ALL_HANDS else name)
        settings = self._runtime.settings
        names = operations.known_agents(settings, None if name == ALL_HANDS else name)
        switch = operations.pause if paused else operations.resume

        def call() -> list[dict[str, Any]]:
            ledger = self._runtime.ledger
            return [
                {"agent": agent, "paused": paused, "changed": switch(ledger, agent)}
                for agent in names
            ]

        return await self._reads.run(call)
