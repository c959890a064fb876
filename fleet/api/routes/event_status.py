"""`GET /events/{event_id}`: the parent record of an event's dispatches."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import caller_of
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import check_names, flag
from fleet.auth import tokens
from fleet.ledger import ids, parents
from fleet.ledger.operations import Unknown
from fleet.runtime import Runtime
from routing.event import SOURCE_DEFAULT


class EventStatus:
    """The endpoint."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def get(self, request: Request) -> Response:
        """One event with the outcomes of its dispatches; its content only with `?content=1`."""
        check_names(request.query_params, "source", "sent_by", "content")
        event_id = str(request.path_params["event_id"])
        named = request.query_params.get("source")
        source = SOURCE_DEFAULT if named is None else named
        sent_by = request.query_params.get("sent_by")
        content = flag(request.query_params, "content")
        caller = caller_of(request.scope)

        def get() -> dict[str, Any] | None:
            store, reads = self._runtime.store, caller.rights.reads
            senders, mine = tokens.senders(store), caller.sent_by
            if sent_by is not None:
                senders, mine = (sent_by,), sent_by
            sender = parents.find(store, event_id, source, senders, mine, reads=reads)
            if sender is not None:
                return parents.get(store, event_id, source, sender, content=content)
            found = ids.find_event(
                *(store, event_id, lambda agent, _: reads(agent)), source=named, sent_by=sent_by
            )
            if found is None:
                return None
            parts = found.event_id, found.source, found.sent_by
            return parents.get(store, *parts, content=content)

        record = await self._reads.run(get)
        if record is None:
            raise Unknown(
                "There is no event of this id, `source` and `sent_by` that you may see; one whose "
                f"sender named no source is of {SOURCE_DEFAULT!r}."
            )
        return JSONResponse(record)
