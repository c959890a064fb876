"""`GET /chains/{chain_id}`: the state of a run through a chain, and its dispatches."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import rights_of
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import check_names
from fleet.errors import Unknown
from fleet.ledger import views
from fleet.runtime import Runtime


class Chains:
    """The endpoint."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def get(self, request: Request) -> Response:
        """One chain with the dispatches that the caller may see; unknown where there are none."""
        check_names(request.query_params)
        chain_id, rights = str(request.path_params["chain_id"]), rights_of(request.scope)
        found = await self._reads.run(lambda: views.chain(self._runtime.store, chain_id))
        seen = (
            [(i, agent) for i, agent in found["dispatches"] if rights.reads(agent)] if found else []
        )
        if found is None or not (seen or rights.reads_all):
            raise Unknown("There is no chain of this id that you may see.")
        dispatches = [{"dispatch_id": i, "agent": agent} for i, agent in seen]
        return JSONResponse({**found, "dispatches": dispatches})
