"""A model provider that misbehaves on demand: the chat completions protocol over real HTTP.

The model's name says what happens:

    ok            answers            delay-<s>     answers after <s> seconds
    tools         calls a tool       flaky<n>      503 to the first <n> requests, then answers
    r429[-<s>]    Retry-After: <s>   slow          a piece every 0.3 s, streamed or not
    limit<n>-<s>  r429-<s> to the first <n> requests, then answers
    e500 e503     server errors      stall         some pieces, then nothing more
    auth          401                cut           some pieces, then the end of the connection
    forbidden     403                hang          no answer at all
    nomodel       404                drop          closes the connection instead of answering
    ctx           too long           badjson       half a document
    policy        refused content    nochoices     JSON of another kind
    badrequest    400                empty         no choice among the choices
    trickle       a byte every       garbage       some pieces, then half a document, then the rest
                  0.05 s             withheld      an answer that the provider's filter has cut

    script        calls the tools that the last user message names, round by round: a JSON list of
                  rounds, each a list of [name, arguments], arguments an object or any string
    loop          dispatches what it is told, a JSON list of agents, to each of them

Further names, of odd answers, are in `tests.fakes.odd_answers` and `anthropic_answers`.

Errors quote the prompt and the key, as real providers do. `python -m tests.fakes.provider PORT LOG`
runs it as a process of its own, which prints its address; port 0 takes a free one.

Every request leaves two lines in the log, `started` before anything else happens and `finished`
after the whole answer was written; a line is one write, so it survives the end of the process.
"""

import json
import os
import re
import signal
import socket
import sys
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from threading import Event, Lock, Thread
from typing import Any, Self

from tests.fakes import answers, anthropic_answers
from tests.fakes.answers import ERRORS, WORDS, error

#: A request may name itself by this header, or by `metadata.id`; else by its last user message.
ID_HEADER = "x-fleet-request"

PIECE_S = 0.3
BYTE_S = 0.05
HANG_S_MAX = 600.0
#: How many pieces get through before `stall` and `cut`.
PIECES_BEFORE_FAULT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as the provider saw it; times are seconds of `time.time`."""

    call: str
    model: str
    id: str
    stream: bool
    started: float
    finished: float | None = None
    #: What was asked, whole, and the key; never in the log.
    body: dict[str, Any] = field(default_factory=dict)
    key: str = ""


def message_id(text: str) -> str:
    """The id of a request that does not name itself: of its last user message."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_log(path: Path) -> list[Request]:
    """Every request of a log, in the order of their start; a torn last line is left out."""
    requests: dict[str, Request] = {}
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        entry = json.loads(line)
        call, mark, at = entry.pop("call"), entry.pop("mark"), entry.pop("at")
        if mark == "started":
            requests[call] = Request(call=call, started=at, **entry)
        else:
            requests[call] = replace(requests[call], finished=at)
    return list(requests.values())


class Provider(ThreadingMixIn, HTTPServer):
    """The server; a context manager that leaves no thread and no connection behind."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(self, port: int = 0, log: Path | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.closing = Event()
        self.connections: set[socket.socket] = set()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._log = None if log is None else os.open(log, flags, 0o600)
        self._lock = Lock()
        self._requests: dict[str, Request] = {}
        self._thread = Thread(target=self.serve_forever, args=(0.02,), name="provider")

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order of their start."""
        with self._lock:
            return list(self._requests.values())

    def count(self, model: str) -> int:
        """How many requests named the model."""
        return Counter(request.model for request in self.requests)[model]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        if self._log is not None:
            os.close(self._log)

    def started(self, request: Request) -> int:
        """Record it; return which request for its model it is, from 1."""
        with self._lock:
            self._requests[request.call] = request
            number = Counter(known.model for known in self._requests.values())[request.model]
        self._write(
            *(request.call, "started", request.started),
            model=request.model,
            id=request.id,
            stream=request.stream,
        )
        return number

    def finished(self, call: str) -> None:
        """Record that the whole answer was written."""
        at = time.time()
        with self._lock:
            self._requests[call] = replace(self._requests[call], finished=at)
        self._write(call, "finished", at)

    def _write(self, call: str, mark: str, at: float, **more: Any) -> None:
        if self._log is not None:
            line = json.dumps({"call": call, "mark": mark, "at": at, **more})
            os.write(self._log, line.encode() + b"\n")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    #: Else the body waits 40 ms for the acknowledgement of the headers.
    disable_nagle_algorithm = True
    server: Provider

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Silence: the requests are recorded."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def do_GET(self) -> None:
        self._json(200, {"object": "list", "data": [{"id": "ok", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        model, stream = str(body["model"]), bool(body.get("stream"))
        call = uuid.uuid4().hex[:12]
        prompt = _last_user_text(body)
        name = self.headers.get(ID_HEADER) or (body.get("metadata") or {}).get("id")
        number = self.server.started(
            Request(
                call=call,
                model=model,
                id=name or message_id(prompt),
                stream=stream,
                started=time.time(),
                body=body,
                key=self._key(),
            )
        )
        if self._answer(_behaviour(model, number), body, prompt):
            self.wfile.flush()
            self.server.finished(call)

    def _answer(self, behaviour: str, body: dict[str, Any], prompt: str) -> bool:
        """True when the whole answer was written."""
        kind, _, argument = behaviour.partition("-")
        if kind in ERRORS:
            status, content = error(kind, prompt, self._key())
            headers = {"retry-after": argument or "1"} if status == 429 else {}
            self._json(status, content, **headers)
            return True
        if kind == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return False
        if kind == "hang":
            return self._pause(HANG_S_MAX)
        if kind == "delay" and not self._pause(float(argument)):
            return False
        if kind == "badjson":
            self._send(200, "application/json", b'{"id": "x", "choices": [{"mess')
            return True
        if kind == "nochoices":
            self._json(200, {"hello": "world"})
            return True
        make = anthropic_answers if self.path.endswith("/messages") else answers
        if body.get("stream"):
            pieces = list(make.events(kind, body))
            self._head(200, "text/event-stream", None)
        else:
            whole = json.dumps(make.document(kind, body)).encode()
            size = len(whole) // len(WORDS) + 1
            pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
            self._head(200, "application/json", len(whole))
        return self._pieces(kind, pieces)

    def _key(self) -> str:
        return str(self.headers.get("authorization", "")).removeprefix("Bearer ")

    def _pieces(self, kind: str, pieces: list[bytes]) -> bool:
        if kind == "trickle":
            pieces = [bytes([byte]) for byte in b"".join(pieces)]
        for number, piece in enumerate(pieces):
            if kind == "trickle" and not self._pause(BYTE_S):
                return False
            if kind in ("stall", "cut") and number == PIECES_BEFORE_FAULT:
                self.close_connection = True
                return kind == "stall" and self._pause(HANG_S_MAX)
            if kind == "garbage" and number == PIECES_BEFORE_FAULT:
                self.wfile.write(b'data: {"id": "c1", "choices": [{"del\n\n')
            if kind == "slow" and not self._pause(PIECE_S):
                return False
            self.wfile.write(piece)
            self.wfile.flush()
        return True

    def _pause(self, seconds: float) -> bool:
        """False when the server closed meanwhile."""
        self.close_connection = self.server.closing.wait(seconds)
        return not self.close_connection

    def _json(self, status: int, document: Any, **headers: str) -> None:
        self._send(status, "application/json", json.dumps(document).encode(), **headers)

    def _send(self, status: int, content_type: str, body: bytes, **headers: str) -> None:
        self._head(status, content_type, len(body), **headers)
        self.wfile.write(body)

    def _head(self, status: int, content_type: str, length: int | None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is None:
            self.close_connection = True
            self.send_header("connection", "close")
        else:
            self.send_header("content-length", str(length))
        self.end_headers()


def _behaviour(model: str, number: int) -> str:
    if flaky := re.fullmatch(r"flaky(\d+)", model):
        return "e503" if number <= int(flaky[1]) else "ok"
    if limit := re.fullmatch(r"limit(\d+)-(\d+)", model):
        return f"r429-{limit[2]}" if number <= int(limit[1]) else "ok"
    return model


def _last_user_text(body: dict[str, Any]) -> str:
    for message in reversed(body.get("messages", [])):
        if message.get("role") == "user":
            return str(message.get("content"))
    return ""


def main(port: str, log: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    with Provider(int(port), Path(log)) as provider:
        stopped = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        print(provider.url, flush=True)  # noqa: T201 - the caller reads it
        while not stopped.wait(1.0):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:3])
