"""A tool server on Streamable HTTP that forgets its sessions, and says so as real ones do.

Some answer 404 to a session that they do not know, as the protocol wants, others 400, 401 or 500.
"""

import json
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

_TEXT = b'{"type": "text", "text": "a \\ud83d b"}'
_SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
TOOLS: list[dict[str, Any]] = [
    {"name": "read_note", "inputSchema": _SCHEMA},
    {"name": "write_note", "inputSchema": _SCHEMA},
    {"name": "same_note", "inputSchema": _SCHEMA, "annotations": {"idempotentHint": True}},
    {"name": "read_half", "inputSchema": _SCHEMA},
    {"name": "read_half_event", "inputSchema": _SCHEMA},
]


class ForgetfulServer(ThreadingHTTPServer):
    """The server; a context manager."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/mcp"
        self.sessions: set[str] = set()
        self.sessions_begun = 0
        self.unknown_status, self.next_status, self.closed_status = 404, 0, 0
        self.noted: list[str] = []
        #: Calls of tools that were not carried out.
        self.refused: list[str] = []
        self._thread = Thread(target=self.serve_forever, args=(0.02,), name="forgetful")

    def forget(self, status: int) -> None:
        """Forget all sessions; requests in them are answered with this status."""
        self.sessions.clear()
        self.unknown_status = status

    def refuse_next(self, status: int) -> None:
        """Answer the next call with this status, although its session is known."""
        self.next_status = status

    def close_for(self, status: int) -> None:
        """Answer every request with this status from now on."""
        self.closed_status = status

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ForgetfulServer

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._send(405, b"")

    def do_DELETE(self) -> None:
        self._send(200, b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        params = body.get("params") or {}
        method, number = body["method"], body.get("id")
        if status := self._refusal(method):
            if method == "tools/call":
                self.server.refused.append(params["name"])
            self._send(status, b"no")
        elif number is None:
            self._send(202, b"")
        elif method == "initialize":
            session = uuid.uuid4().hex
            self.server.sessions.add(session)
            self.server.sessions_begun += 1
            info = {"name": "forgetful", "version": "1"}
            version = params["protocolVersion"]
            known = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
            self._result(number, known, session)
        elif method == "tools/call":
            self._call(number, params["name"], (params.get("arguments") or {}).get("text", ""))
        else:
            self._result(number, {"tools": TOOLS} if method == "tools/list" else {})

    def _refusal(self, method: str) -> int:
        server = self.server
        if server.closed_status:
            return server.closed_status
        if method == "tools/call" and server.next_status:
            status, server.next_status = server.next_status, 0
            return status
        known = method == "initialize" or self.headers.get("mcp-session-id") in server.sessions
        return 0 if known else server.unknown_status

    def _call(self, number: Any, name: str, text: str) -> None:
        if name.startswith("read_half"):
            raw = b'{"jsonrpc": "2.0", "id": %d, "result": {"content": [%s]}}' % (number, _TEXT)
            event = name == "read_half_event"
            answer = b"event: message\ndata: " + raw + b"\n\n" if event else raw
            self._send(200, answer, "text/event-stream" if event else "application/json")
            return
        self.server.noted.append(text)
        self._result(number, {"content": [{"type": "text", "text": text}]})

    def _result(self, number: Any, result: dict[str, Any], session: str = "") -> None:
        answer = {"jsonrpc": "2.0", "id": number, "result": result}
        self._send(200, json.dumps(answer).encode(), session=session)

    def _send(
        self, status: int, body: bytes, kind: str = "application/json", session: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if session:
            self.send_header("mcp-session-id", session)
        self.end_headers()
        self.wfile.write(body)
