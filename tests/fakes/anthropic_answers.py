"""Answers of the fake provider in Anthropic's protocol, for requests to `/messages`.

By the model's name: `ok`, `refused`, `limited`, `spent`, `silent`, and streamed `cut`.
"""

import json
from collections.abc import Iterator
from typing import Any

#: Text and stop reason.
_ANSWERS = {
    "refused": ("", "refusal"),
    "limited": ("Half an ans", "max_tokens"),
    "spent": ("", "max_tokens"),
    "silent": ("", "end_turn"),
}
_OK = ("all said", "end_turn")


def document(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """A whole answer."""
    text, reason = _ANSWERS.get(kind, _OK)
    content = [{"type": "text", "text": text}] if text else []
    return _message(body) | {
        "content": content,
        "stop_reason": reason,
        "usage": {"input_tokens": 11, "output_tokens": 8},
    }


def events(kind: str, body: dict[str, Any]) -> Iterator[bytes]:
    """The same answer as server-sent events."""
    text, reason = _ANSWERS.get(kind, _OK)
    usage = {"input_tokens": 11, "output_tokens": 1}
    yield _event("message_start", message=_message(body) | {"content": [], "usage": usage})
    if text:
        block = {"type": "text", "text": ""}
        yield _event("content_block_start", index=0, content_block=block)
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        yield _event("content_block_stop", index=0)
    if kind == "cut":
        return
    delta = {"stop_reason": reason, "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage={"output_tokens": 8})
    yield _event("message_stop")


def _message(body: dict[str, Any]) -> dict[str, Any]:
    return {"id": "m1", "type": "message", "role": "assistant", "model": body["model"]}


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
