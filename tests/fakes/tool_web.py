"""A Model Context Protocol server on Streamable HTTP, made with the SDK; `TOKEN` opens it.

python -m tests.fakes.tool_web PORT [json]
"""

import asyncio
import sys

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN = "let-me-in"

server = MCPServer("web")


@server.tool()
def read_echo(text: str) -> str:
    """Say it again."""
    return text


@server.tool()
async def read_slow(text: str) -> str:
    """Take so many seconds."""
    await asyncio.sleep(float(text))
    return "at last"


@server.tool()
def read_big(text: str) -> str:
    """Say so many megabytes."""
    return "x" * (int(text) << 20)


@server.tool()
async def write_more(text: str, context: Context) -> str:
    """Have one tool more."""
    server.add_tool(lambda: text, name="read_more")
    await context.session.send_tool_list_changed()
    return "more"


def guarded(app: ASGIApp) -> ASGIApp:
    """Lets in who has the token."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http" and headers[b"authorization"] != f"Bearer {TOKEN}".encode():
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"no sk-canary"})
        else:
            await app(scope, receive, send)

    return guard


if __name__ == "__main__":
    app = server.streamable_http_app(json_response="json" in sys.argv)
    uvicorn.run(guarded(app), port=int(sys.argv[1]), log_level="error")
