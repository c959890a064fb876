"""The peer of `fleet bench bus`: an endpoint with one blocking read of the stream per client.

It is the first design of most tutorials: accept, then XREAD BLOCK from the client's own place and
send the entries. ASGI server, Redis client and JSON are the same as the fleet's.
"""

import json
import sys
from typing import Any

import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from fleet.ledger.bus import parse_entry
from fleet.store import keys

BLOCK_MS = 5000
CHUNK = 100


def create(url: str) -> Starlette:
    """The application."""
    client = redis.asyncio.Redis.from_url(
        url, decode_responses=True, socket_timeout=None, max_connections=10_000
    )

    async def follow(socket: WebSocket) -> None:
        await socket.accept()
        last = socket.query_params.get("last-event-id") or await newest()
        try:
            while True:
                answer: Any = await client.xread({keys.BUS: last}, count=CHUNK, block=BLOCK_MS)
                for entry_id, raw in rows(answer):
                    event = parse_entry(entry_id, raw)
                    await socket.send_text(json.dumps(event.to_wire(), separators=(",", ":")))
                    last = entry_id
        except (WebSocketDisconnect, RuntimeError):
            return

    async def newest() -> str:
        info = await client.xinfo_stream(keys.BUS)
        return str(info["last-generated-id"])

    return Starlette(routes=[WebSocketRoute("/ws", follow)])


def rows(answer: Any) -> Any:
    """The rows of an XREAD answer, in either version of the protocol."""
    if not answer:
        return []
    return answer[keys.BUS][0] if isinstance(answer, dict) else answer[0][1]


if __name__ == "__main__":
    uvicorn.run(
        create(sys.argv[1]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        access_log=False,
        log_level="error",
        ws_per_message_deflate=False,
        backlog=2048,
    )
