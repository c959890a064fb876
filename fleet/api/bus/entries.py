"""`GET /bus/entries`: the stored entries of the bus in pages, for who does not follow it."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.bus.cursor import parse_cursor, place_of
from fleet.api.bus.routes import filter_of
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.parameters import check_names, number
from fleet.api.request.problems import bad_parameter
from fleet.ledger import bus
from fleet.runtime import Runtime

EXAMINED_MAX = 1000
_BEGINNING = "0-0"


class BusEntries:
    """The endpoint."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def find(self, request: Request) -> Response:
        """The entries after a place that the caller may see, oldest first.

        `next` is the place of the next page, null at the end; `last` is the newest entry there is.
        `trimmed` says that entries right after the place are no longer kept.
        """
        query = request.query_params
        check_names(query, "after", "limit", "agent", "type", "session")
        after = query.get("after", _BEGINNING)
        cursor = parse_cursor(after)
        if cursor is None:
            raise bad_parameter("after", "must be a place on the bus, such as 1772822677655-0")
        begin = f"{cursor.place[0]}-{cursor.place[1]}"
        limit = number(query, "limit", bus.CHUNK, 1, EXAMINED_MAX)
        selection = filter_of(query, request.scope, self._runtime.settings.agents)

        def read() -> dict[str, Any]:
            store = self._runtime.store
            last = bus.last_id(store)
            found = bus.read(store, begin, count=limit)
            more = bool(found) and place_of(found[-1].id) < place_of(last)
            return {
                "entries": [one.to_wire() for one in found if selection.matches(one)],
                "next": found[-1].id if more else None,
                "last": last,
                "trimmed": begin != _BEGINNING and bus.is_trimmed(store, begin),
            }

        return JSONResponse(await self._reads.run(read))
