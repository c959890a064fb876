"""Answers of the chat completions protocol byte by byte, with their headers, as servers sent them.

By the model's name, the same whether a stream was asked for or not.
"""

import gzip
import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

SAID = "all said"
CALLS = [
    {
        "id": f"c{place}",
        "type": "function",
        "function": {"name": "lookup", "arguments": {"q": word}},
    }
    for place, word in enumerate(("one", "two"))
]
#: A chunk of Azure, before and after its text: what its filter found.
_FILTER = {"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
_OFFSETS = {
    "id": "",
    "choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {}}],
}
_USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@dataclass(frozen=True, slots=True)
class Raw:
    """One answer."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def _chunk(delta: Any = None, reason: Any = None, **more: Any) -> dict[str, Any]:
    about = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": reason}
    return {**about, "choices": [choice], **more}


def _events(*chunks: dict[str, Any]) -> bytes:
    return b"".join(f"data: {json.dumps(one)}\n\n".encode() for one in chunks) + b"data: [DONE]\n\n"


def _document(message: dict[str, Any], reason: str | None = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    about = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**about, "choices": [choice], "usage": _USAGE, **more}).encode()


_START, _STOP = _chunk({"role": "assistant", "content": "all "}), _chunk({}, "stop")
_TEXT = (_START, _chunk({"content": "said"}), _STOP)
_OTHER = _chunk()["choices"][0] | {"index": 1, "delta": {"content": "another answer"}}
_SSE, _JSON = {"content-type": "text/event-stream"}, {"content-type": "application/json"}

#: Streams.
EVENTS: dict[str, Raw] = {
    "azure": Raw(_events(_FILTER, *_TEXT[:2], _OFFSETS, _STOP, _OFFSETS), _SSE),
    "usagealone": Raw(_events(*_TEXT, {"object": _START["object"], "usage": _USAGE}), _SSE),
    "nullchoices": Raw(_events(*_TEXT, _chunk(choices=None, usage=_USAGE)), _SSE),
    "nulldelta": Raw(
        _events(*_TEXT[:2], _chunk(choices=[_STOP["choices"][0] | {"delta": None}])), _SSE
    ),
    "twochoices": Raw(_events(_chunk(choices=[_OTHER]), *_TEXT), _SSE),
    "untold": Raw(_events(*_TEXT)),
    "mislabelled": Raw(_events(*_TEXT), _JSON),
    "packed": Raw(gzip.compress(_events(*_TEXT)), {**_SSE, "content-encoding": "gzip"}),
    "wrongusage": Raw(_events(*_TEXT, _chunk(choices=[], usage={"prompt_tokens": "7"})), _SSE),
    "document": Raw(_document({"content": SAID}), _JSON),
    "documenttold": Raw(_document({"content": SAID}), _SSE),
    "blank": Raw(b"\n  \n" * 9 + _document({"content": SAID}, None), _JSON),
}
#: Streams that are no answer.
NO_ANSWERS: dict[str, Raw] = {
    "filtered": Raw(_events(_START, _chunk({}, "content_filter"), _STOP), _SSE),
    "broke": Raw(
        _events(_START, _chunk(choices=[_STOP["choices"][0] | {"error": {"code": 5}}])), _SSE
    ),
    "packedrefusal": Raw(
        gzip.compress(_events(_chunk({"refusal": "no"}), _START, _STOP)),
        {**_SSE, "content-encoding": "gzip"},
    ),
    "unknown": Raw(b'event: error\ndata: {"message": "Boom.", "code": 500}\n\n', _SSE),
    "sound": Raw(_events(_chunk({"audio": {"data": "x"}}), _STOP), _SSE),
}
#: Whole answers.
DOCUMENTS: dict[str, Raw] = {
    "bare": Raw(_document({"content": SAID}), _JSON),
    "marked": Raw(b"\xef\xbb\xbf" + _document({"content": SAID}), _JSON),
    "stringusage": Raw(_document({"content": SAID}, usage={"prompt_tokens": "x"}), _JSON),
    "nanusage": Raw(_document({"content": SAID}, usage={"prompt_tokens": float("nan")}), _JSON),
    "nocalls": Raw(_document({"content": SAID, "tool_calls": "none"}), _JSON),
    "packeddocument": Raw(
        gzip.compress(_document({"content": SAID})), {**_JSON, "content-encoding": "gzip"}
    ),
}
#: Calls of two tools, whole, whatever was asked for.
TWO_CALLS: dict[str, Raw] = {
    "calls": Raw(_document({"tool_calls": CALLS}, "tool_calls"), _JSON),
    "sameids": Raw(
        _document({"tool_calls": [call | {"id": "c"} for call in CALLS]}, "tool_calls"), _JSON
    ),
}
#: Amounts that no answer has.
AMOUNTS: dict[str, Raw] = {
    name: Raw(_document({"content": SAID}, usage=_USAGE | {"prompt_tokens": amount}), _JSON)
    for name, amount in {"negative": -700, "huge": 10**30}.items()
}
_ALL = EVENTS | NO_ANSWERS | DOCUMENTS | TWO_CALLS | AMOUNTS


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = _ALL[body["model"]]
        self.send_response(200)
        for name, value in {**answer.headers, "content-length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)


@contextmanager
def serving() -> Any:
    """The base URL of a provider that gives these answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()
