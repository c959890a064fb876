"""Answers of the fake provider: documents, streams and errors of the chat completions protocol."""

import json
import time
from collections.abc import Iterator
from typing import Any

from tests.fakes import odd_answers

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
TEXT = " ".join(WORDS)
USAGE = {"prompt_tokens": 11, "completion_tokens": 8, "total_tokens": 19}

#: status, code, type, message with the prompt and the key.
ERRORS: dict[str, tuple[int, str, str, str]] = {
    "r429": (429, "rate_limit_exceeded", "requests", "Slow down."),
    "e500": (500, "internal", "server_error", "Boom at {prompt}."),
    "e503": (503, "overloaded", "server_error", "Overloaded."),
    "auth": (401, "invalid_api_key", "invalid_request_error", "Incorrect API key provided: {key}."),
    "forbidden": (403, "forbidden", "permission_error", "{key} may not use this model."),
    "nomodel": (404, "model_not_found", "invalid_request_error", "No such model."),
    "ctx": (
        *(400, "context_length_exceeded", "invalid_request_error"),
        "This model's maximum context length is 4096 tokens, not enough for {prompt}.",
    ),
    "policy": (400, "content_policy_violation", "invalid_request_error", "Rejected: {prompt}."),
    "badrequest": (400, "invalid_value", "invalid_request_error", "Invalid: {prompt}, {key}."),
}


def error(kind: str, prompt: str, key: str) -> tuple[int, dict[str, Any]]:
    """Status and document of an error."""
    status, code, type_of_error, message = ERRORS[kind]
    text = message.format(prompt=prompt, key=key)
    return status, {"error": {"message": text, "type": type_of_error, "code": code, "param": None}}


def _tool_calls(kind: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    wanted: list[list[Any]] = []
    if kind == "script":
        wanted = _scripted(body["messages"])
    elif kind == "loop" and body["messages"][-1]["role"] != "tool":
        text = body["messages"][-1]["content"]
        wanted = [["queue_dispatch", {"to": to, "text": text}] for to in json.loads(text)]
    elif kind == "tools" and body["messages"][-1]["role"] != "tool":
        offered = body.get("tools") or [{"function": {"name": "lookup"}}]
        wanted = [[offered[0]["function"]["name"], {"q": "x"}]]
    return [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": _text(given)},
        }
        for number, (name, given) in enumerate(wanted, start=1)
    ]


def _text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _scripted(messages: list[dict[str, Any]]) -> list[list[Any]]:
    """The calls of this round: one is over for each time that the model has spoken since."""
    told = max(place for place, one in enumerate(messages) if one["role"] == "user")
    rounds: list[list[list[Any]]] = json.loads(messages[told]["content"])
    over = sum(one["role"] == "assistant" for one in messages[told:])
    return rounds[over] if over < len(rounds) else []


def _base(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "c1", "created": int(time.time()), "model": body["model"], "object": kind}


def document(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """A whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": TEXT}
    reason: str | None = "stop"
    if kind in odd_answers.KINDS:
        message, reason = odd_answers.message(kind, body)
    elif tool_calls := _tool_calls(kind, body):
        message, reason = message | {"content": None, "tool_calls": tool_calls}, "tool_calls"
    reason = "content_filter" if kind == "withheld" else reason
    choice = {"index": 0, "message": message, "finish_reason": reason}
    choices = [] if kind == "empty" else [choice]
    # LiteLLM needs the service tier of Groq, which sends one.
    about = {"choices": choices, "usage": USAGE, "service_tier": "on_demand"}
    return _base(body, "chat.completion") | about


def events(kind: str, body: dict[str, Any]) -> Iterator[bytes]:
    """The same answer as server-sent events."""

    def event(choices: list[Any], **more: Any) -> bytes:
        chunk = _base(body, "chat.completion.chunk") | {"choices": choices} | more
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    def choice(delta: dict[str, Any], reason: str | None = None) -> list[Any]:
        return [{"index": 0, "delta": delta, "finish_reason": reason}]

    if kind in odd_answers.KINDS:
        for delta, reason in odd_answers.deltas(kind, body):
            yield event(choice(delta, reason))
        if kind != "nodone":
            yield event([], usage=USAGE)
            yield b"data: [DONE]\n\n"
        return
    tool_calls = _tool_calls(kind, body)
    for place, tool_call in enumerate(tool_calls):
        first = tool_call | {"index": place, "function": tool_call["function"] | {"arguments": ""}}
        yield event(choice({"role": "assistant", "content": None, "tool_calls": [first]}))
        rest = {"arguments": tool_call["function"]["arguments"]}
        yield event(choice({"tool_calls": [{"index": place, "function": rest}]}))
    if not tool_calls and kind != "empty":
        for word in (*(f"{word} " for word in WORDS[:-1]), WORDS[-1]):
            yield event(choice({"role": "assistant", "content": word}))
    if kind != "empty":
        reason = "content_filter" if kind == "withheld" else "stop"
        yield event(choice({}, "tool_calls" if tool_calls else reason))
    if (body.get("stream_options") or {}).get("include_usage"):
        yield event([], usage=USAGE)
    yield b"data: [DONE]\n\n"
