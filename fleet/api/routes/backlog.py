"""The work that waits, over HTTP: cancel and move that of an agent, purge the dead letters."""

from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import rights_of
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import check_names
from fleet.api.request.problems import Problem
from fleet.api.request.small_body import read_object, reason_in
from fleet.auth.tokens import EVERYONE
from fleet.ledger import operations
from fleet.runtime import Runtime

_REASON_DEFAULT = "requested over HTTP"


class Backlog:
    """The endpoints. Each needs the scope `operate`, and to read the agents that it names."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def cancel(self, request: Request) -> Response:
        """Cancel everything that waits for an agent; a running turn goes on."""
        agent = self._agent(request)
        reason = reason_in(await read_object(request, "reason"), _REASON_DEFAULT)
        runtime = self._runtime

        def cancel() -> int:
            operations.agents_with_work(runtime.store, runtime.settings, agent)
            return operations.drain(runtime.ledger, runtime.settings, agent, reason)

        return JSONResponse({"agent": agent, "cancelled": await self._reads.run(cancel)})

    async def move(self, request: Request) -> Response:
        """Give what waits for an agent to another, each in its old place."""
        old = self._agent(request)
        new = (await read_object(request, "to")).get("to")
        if not isinstance(new, str):
            detail = "`to` must name the agent that gets the work."
            raise Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", detail)
        rights_of(request.scope).need_read(new)
        runtime = self._runtime

        def move() -> dict[str, Any]:
            return dict(operations.reassign(runtime.ledger, runtime.settings, old, new))

        return JSONResponse({"from": old, "to": new, "moved": await self._reads.run(move)})

    async def purge(self, request: Request) -> Response:
        """Forget every dead letter, of whichever agent."""
        check_names(request.query_params)
        rights = rights_of(request.scope)
        rights.need_operate()
        rights.need_read(EVERYONE)
        runtime = self._runtime
        purged = await self._reads.run(lambda: operations.purge(runtime.ledger, runtime.settings))
        return JSONResponse({"purged": purged})

    def _agent(self, request: Request) -> str:
        check_names(request.query_params)
        rights, agent = rights_of(request.scope), str(request.path_params["agent"])
        rights.need_operate()
        rights.need_read(agent)
        return agent
