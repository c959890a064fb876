"""An event over HTTP: the parent record of its dispatches."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.access import rights_of
from fleet.api.backend import Backend
from fleet.api.parameters import flag
from fleet.ledger import parents
from fleet.ledger.operations import Unknown
from routing.event import SOURCE_DEFAULT


class Parents:
    """The endpoint `/events/{event_id}`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def get(self, request: Request) -> Response:
        """One event with its members' outcomes; its content only with `?content=1`."""
        event_id = str(request.path_params["event_id"])
        source = request.query_params.get("source", SOURCE_DEFAULT)
        content = flag(request.query_params, "content")
        record = await self._backend.reads.run(
            lambda: parents.get(self._backend.store(), event_id, source, content=content)
        )
        if record is None:
            raise Unknown(
                "There is no event of this id and `source`; one whose sender named no source is "
                f"of {SOURCE_DEFAULT!r}."
            )
        for member in record["members"]:
            rights_of(request.scope).need_read(member["agent"])
        return JSONResponse(record)
