"""`POST /tickets`: what a browser puts into the URL of a WebSocket or an EventSource.

Neither can send a header, and a URL is logged on its way; a ticket is worthless once it was used.
"""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import Access, caller_of
from fleet.auth.tokens import TICKET_S


class Tickets:
    """The endpoint."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def issue(self, request: Request) -> Response:
        """A ticket for the caller, good for one request within half a minute."""
        ticket = await self._access.ticket(caller_of(request.scope))
        return JSONResponse(
            {"ticket": ticket, "expires_in_s": TICKET_S},
            int(HTTPStatus.CREATED),
            {"Cache-Control": "no-store"},
        )
