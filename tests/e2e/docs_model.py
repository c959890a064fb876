"""A provider of models for the documentation: it knows the pages' questions and answers them.

It speaks the chat completions protocol and Anthropic's messages, without streams.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An answer; with `tool` only when that was called, and then `{}` is what it returned."""

    answer: str
    tool: str = ""
    given: dict[str, Any] = field(default_factory=dict)


#: A part of the question -> the reply.
REPLIES = {
    "Where is order 17?": Reply("Order 17: {}.", "order_status", {"order": 17}),
    "Add 2 and 3.": Reply("It is {}.", "add", {"a": 2, "b": 3}),
    "Ask gem": Reply("Gem has it.", "queue_dispatch", {"to": "gem", "text": "Review it."}),
    "capital of France": Reply("Paris."),
}
UNKNOWN = Reply("An answer.")


def _reply(messages: list[dict[str, Any]]) -> tuple[Reply, str | None]:
    """The reply, and the result of its tool where there is one."""
    last = messages[-1]
    result = None
    if last["role"] == "tool":
        result = _text(last["content"])
    elif isinstance(last["content"], list) and last["content"][0]["type"] == "tool_result":
        result = _text(last["content"][0]["content"])
    asked = next(m for m in reversed(messages) if m["role"] == "user" and not _is_result(m))
    text = _text(asked["content"])
    return next((reply for part, reply in REPLIES.items() if part in text), UNKNOWN), result


def _is_result(message: dict[str, Any]) -> bool:
    content = message["content"]
    return isinstance(content, list) and content[0]["type"] == "tool_result"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(str(part["text"]) for part in content)


def _chat(body: dict[str, Any], reply: Reply, result: str | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.answer.format(result)}
    reason = "stop"
    if reply.tool and result is None:
        call = {"name": reply.tool, "arguments": json.dumps(reply.given)}
        message |= {"content": None}
        message |= {"tool_calls": [{"id": "call_1", "type": "function", "function": call}]}
        reason = "tool_calls"
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 8, "total_tokens": 19},
    }


def _message(body: dict[str, Any], reply: Reply, result: str | None) -> dict[str, Any]:
    content: dict[str, Any] = {"type": "text", "text": reply.answer.format(result)}
    reason = "end_turn"
    if reply.tool and result is None:
        content = {"type": "tool_use", "id": "call_1", "name": reply.tool, "input": reply.given}
        reason = "tool_use"
    return {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [content],
        "stop_reason": reason,
        "usage": {"input_tokens": 11, "output_tokens": 8},
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        shape = _message if self.path.endswith("/messages") else _chat
        answer = json.dumps(shape(body, *_reply(body["messages"]))).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def provider() -> Iterator[dict[str, str]]:
    """The environment in which models are asked here."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield {
            "OPENAI_API_KEY": "sk-docs",
            "OPENAI_API_BASE": f"{url}/v1",
            "ANTHROPIC_API_KEY": "sk-docs",
            "ANTHROPIC_API_BASE": url,
        }
    finally:
        server.shutdown()
        server.server_close()
