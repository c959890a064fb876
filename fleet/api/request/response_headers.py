"""Headers of every response: no browser guesses its type, and nobody on its way keeps it."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STARTS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_NOSNIFF = (b"x-content-type-options", b"nosniff")


class ResponseHeaders:
    """An ASGI wrapper. A response that says how long it may be kept says it itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] in _STARTS:
                headers = MutableHeaders(raw=[*message.get("headers", ()), _NOSNIFF])
                headers.setdefault("cache-control", "no-store")
                message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, send_safely)
