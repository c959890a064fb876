"""`POST /dispatches/{id}/resend`: a new event from an old one, with changes."""

import json
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import caller_of
from fleet.api.auth.visible import check_operable, find_id
from fleet.api.request.body import too_large
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.problems import bad_parameter
from fleet.api.request.small_body import read_object
from fleet.api.routes.events import template
from fleet.intake.resend import CHANGEABLE, new_event, read_old
from fleet.runtime import Runtime
from routing.event import EVENT_BYTES_MAX

#: Fields of the new event that it never has from the old one.
_OWN = ("id", "hops")


class Resend:
    """The endpoint."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def accept(self, request: Request) -> Response:
        """Send the event of a dispatch again, as `POST /events` sends a new one."""
        caller, new = caller_of(request.scope), template(request.scope)
        limit = min(EVENT_BYTES_MAX, caller.body_bytes or EVENT_BYTES_MAX)
        changes = await read_object(request, *CHANGEABLE, *_OWN, limit=limit)
        for name, value in changes.items():
            if value is None and name != "session":
                raise bad_parameter(name, "must not be null: leave it out to keep the old one")
        runtime, own = self._runtime, {name: changes.pop(name, None) for name in _OWN}

        def send() -> dict[str, Any]:
            dispatch_id = find_id(runtime.store, caller, str(request.path_params["dispatch_id"]))
            check_operable(runtime.store, caller, dispatch_id)
            raw = new_event(read_old(runtime.store, dispatch_id), changes, hops=own["hops"])
            if own["id"] is not None:
                raw["id"] = own["id"]
            if len(json.dumps(raw, ensure_ascii=False).encode(errors="replace")) > limit:
                raise too_large(limit)
            if new.traceparent:
                raw["traceparent"] = new.traceparent
            accepted = runtime.intake.accept(
                raw, new.sender, new_id=new.id, resent_from=dispatch_id
            )
            return {**accepted.to_wire(), "resent_from": dispatch_id}

        return JSONResponse(await self._reads.run(send), int(HTTPStatus.ACCEPTED))
