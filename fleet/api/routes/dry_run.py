"""`POST /route`: the agents that an event would reach; nothing is kept."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import caller_of
from fleet.api.request.body import check_media_type, parse_json, read_body
from fleet.intake.intake import Sender
from fleet.intake.plan_document import plan_document
from fleet.runtime import Runtime
from routing.event import EVENT_BYTES_MAX


class DryRun:
    """The endpoint. It needs the scopes that the event itself would need."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def plan(self, request: Request) -> Response:
        """Plan one event; pure, hence in the event loop."""
        check_media_type(request.scope)
        caller = caller_of(request.scope)
        body = await read_body(request.scope, request.receive, EVENT_BYTES_MAX)
        may = caller.rights.need_send if caller.token else None
        sender = Sender(sent_by=caller.sent_by, may=may)
        plan = self._runtime.intake.plan(parse_json(body), sender)
        return JSONResponse(plan_document(self._runtime.settings, plan))
