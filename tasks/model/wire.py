"""Answers of providers as they come over the network, mended before LiteLLM reads them.

Many servers speak the chat completions protocol, each with its own slips: a tool call without an
index, content as a list of parts, half an emoji in each of two deltas. LiteLLM drops or mixes up
what it does not expect. So each answer of this protocol is put into its plain form here, and what
LiteLLM would translate or lose is recorded: the finish reason as sent, a refusal, the `[DONE]`.
Answers of other protocols pass through as they are.
"""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.model.call_fragments import CallFragments, new_id
from tasks.model.endings import is_end
from tasks.model.text_parts import Halves, refusal_in, text_in

if TYPE_CHECKING:
    import httpx

_DATA = b"data:"
_DONE = "[DONE]"
#: White space, with which some servers pass the time, and a byte order mark.
_BLANK = b" \t\r\n\xef\xbb\xbf"
#: Media types of servers that tell none, or a wrong one.
_UNTOLD = frozenset({"", "application/octet-stream", "application/x-ndjson"})
_UNPACKED = frozenset({"identity", "gzip", "x-gzip", "deflate"})
_BROKE = "error"
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
#: No answer has so many tokens; a wrong amount would use up a budget, or not fit into a counter.
_TOKENS_MAX = 1 << 40
#: Deltas of text.
_TEXTS = ("content", "reasoning_content")


@dataclass(slots=True)
class AnswerFacts:
    """Facts of the newest answer, as its provider sent them."""

    streamed: bool  #: it was asked for in pieces
    is_chat: bool = False  #: it spoke the chat completions protocol
    finish_reason: str = ""  #: empty where it gave none
    refused: bool = False
    done: bool = False  #: it said that nothing follows
    answered: bool = False  #: the status was one of success


_current: ContextVar[AnswerFacts | None] = ContextVar("facts", default=None)


@contextmanager
def recorded(*, streamed: bool) -> Iterator[AnswerFacts]:
    """Mend the answers that come while this lasts, and record their facts."""
    facts = AnswerFacts(streamed)
    token = _current.set(facts)
    try:
        yield facts
    finally:
        _current.reset(token)


def mend(response: "httpx.Response") -> None:
    """Put an answer that comes within `recorded` into its plain form, as it is read."""
    facts = _current.get()
    if facts is None or not response.is_success:
        return
    facts.answered = True
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if not kind.startswith("text/") and not kind.endswith("json") and kind not in _UNTOLD:
        return
    if packing not in _UNPACKED:
        return
    source = response.stream
    if packing != "identity":
        # In spite of the request, which asked for none.
        del response.headers["content-encoding"]
        source = _stream(source, _Packed())
    response.headers.pop("content-length", None)
    response.stream = _stream(source, _Answer(facts))


class _Packed:
    """An answer in gzip or zlib, unpacked."""

    def __init__(self) -> None:
        self._unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def feed(self, piece: bytes) -> bytes:
        return self._unpacker.decompress(piece)

    def end(self) -> bytes:
        return self._unpacker.flush()


class _Answer:
    """A document or events, by the first character: some servers cannot stream, or mislabel."""

    def __init__(self, facts: AnswerFacts) -> None:
        self._facts, self._held = facts, b""
        self._found: _Document | _Events | None = None

    def feed(self, piece: bytes) -> bytes:
        if self._found is None:
            self._held += piece
            if not (begun := self._held.lstrip(_BLANK)):
                return b""
            piece = self._held
            self._found = (_Document if begun.startswith(b"{") else _Events)(self._facts)
        return self._found.feed(piece)

    def end(self) -> bytes:
        return self._found.end() if self._found else self._held


class _Document:
    """One JSON document, mended as soon as it is whole."""

    def __init__(self, facts: AnswerFacts) -> None:
        self._facts, self._pieces = facts, list[bytes]()

    def feed(self, piece: bytes) -> bytes:
        self._pieces.append(piece)
        return b""

    def end(self) -> bytes:
        raw = b"".join(self._pieces)
        found = _chat(raw.decode("utf-8", "replace").lstrip("\ufeff"))
        if found is None:
            return raw
        self._facts.is_chat = self._facts.done = True
        # LiteLLM fails for a provider where it is missing.
        found.setdefault("service_tier", None)
        for place, choice in enumerate(found["choices"]):
            _end(choice, self._facts, first=place == 0)
            message = choice.get("message")
            if isinstance(message, dict):
                _mend_message(message, self._facts)
        return self._in_one_piece(found) if self._facts.streamed else json.dumps(found).encode()

    def _in_one_piece(self, found: dict[str, Any]) -> bytes:
        """The document as a stream, where one was asked for."""
        self._facts.finish_reason = self._facts.finish_reason or "stop"
        for choice in found["choices"]:
            delta = choice.pop("message", None) or {}
            calls = [{**call, "index": at} for at, call in enumerate(delta.get("tool_calls") or ())]
            choice["delta"] = {**delta, "tool_calls": calls} if calls else delta
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        piece = json.dumps({**found, "object": "chat.completion.chunk"})
        return f"data: {piece}\n\ndata: {_DONE}\n\n".encode()


def _mend_message(message: dict[str, Any], facts: AnswerFacts) -> None:
    facts.refused |= bool(refusal_in(message))
    message["content"] = text_in(message.get("content"))
    if "tool_calls" in message:
        message["tool_calls"] = _calls(message["tool_calls"]) or None
    calls = message.get("tool_calls") or []
    for function in _dicts([*(call["function"] for call in calls), message.get("function_call")]):
        function["arguments"] = arguments_text(function.get("arguments"))


def _calls(told: Any) -> list[dict[str, Any]]:
    """The calls of a whole message, each with an id of its own, or without one."""
    calls, ids = list[dict[str, Any]](), set[str]()
    for call in _dicts(told):
        if isinstance(call.get("function"), dict):
            if (call_id := str(call.get("id") or "")) in ids:
                call_id = ""
            ids.add(call_id)
            calls.append({**call, "id": call_id or new_id()})
    return calls


class _Events:
    """Server-sent events, each mended as soon as its line is whole."""

    def __init__(self, facts: AnswerFacts) -> None:
        self._facts, self._rest = facts, b""
        self._halves = Halves()
        self._calls: dict[int, CallFragments] = {}

    def feed(self, piece: bytes) -> bytes:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return b"".join(self._line(line) + b"\n" for line in lines)

    def end(self) -> bytes:
        return self._line(self._rest)

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(_DATA):
            return line
        text = line.removeprefix(_DATA).decode("utf-8", "replace").strip()
        if text == _DONE:
            self._facts.done = True
            return line
        found = _chat(text)
        if found is None:
            return line
        self._facts.is_chat = True
        for place, choice in enumerate(found["choices"]):
            _end(choice, self._facts, first=place == 0)
            delta = choice["delta"] = choice.get("delta") or {}
            if isinstance(delta, dict):
                self._mend_delta(place, delta, last=bool(choice["finish_reason"]))
        return _DATA + b" " + json.dumps(found).encode()

    def _mend_delta(self, choice: int, delta: dict[str, Any], *, last: bool) -> None:
        self._facts.refused |= bool(refusal_in(delta))
        for name in _TEXTS:
            if name in delta or last:
                text = self._halves.join((choice, name), text_in(delta.get(name)) or "", last=last)
                delta[name] = text or (None if delta.get(name) is None else "")
        calls = self._calls.setdefault(choice, CallFragments())
        if told := _dicts(delta.get("tool_calls")):
            delta["tool_calls"] = [calls.mended(one) for one in told]
        for function in _dicts([delta.get("function_call")]):
            function["arguments"] = arguments_text(function.get("arguments"), absent="")


def arguments_text(arguments: Any, absent: str = "{}") -> str:
    """The arguments of a call as JSON text; some providers send the object itself."""
    if isinstance(arguments, str):
        return arguments
    return absent if arguments is None else json.dumps(arguments, ensure_ascii=False)


def _end(choice: dict[str, Any], facts: AnswerFacts, *, first: bool) -> None:
    """Record the finish reason; an empty one is none.

    A later `stop` does not take back a filter, a limit or a fault.
    """
    reason = choice.get("finish_reason") or None
    choice["finish_reason"] = reason = _BROKE if choice.get("error") else reason
    if first and reason and is_end(facts.finish_reason):
        facts.finish_reason = str(reason)


def _chat(text: str) -> dict[str, Any] | None:
    """An object of the chat completions protocol, with what LiteLLM reads of each; or None."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("error"):
        return None
    is_chunk = str(found.get("object")).startswith("chat.completion")
    if not isinstance(found.get("choices"), list) and not is_chunk:
        return None
    # Of several choices, the first is the answer.
    choices = [one for one in _dicts(found.get("choices")) if one.get("index") in (None, 0, "0")]
    return {"id": "", "created": 0, "model": "", **found, "choices": choices} | _usage(found)


def _usage(found: dict[str, Any]) -> dict[str, Any]:
    """The usage that an answer tells, without amounts that cannot be counts of tokens."""
    usage = found.get("usage")
    if not isinstance(usage, dict):
        return {"usage": None} if "usage" in found else {}
    counts = {
        name: amount
        for name, amount in usage.items()
        if name not in _COUNTS or (type(amount) is int and 0 <= amount < _TOKENS_MAX)
    }
    return {"usage": dict.fromkeys(_COUNTS, 0) | counts}


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _stream(source: Any, mender: _Answer | _Packed) -> Any:
    """The stream of `source`, mended. A class of its own would need httpx at import."""
    import httpx

    class Mended(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for piece in source:
                if mended := mender.feed(piece):
                    yield mended
            if mended := mender.end():
                yield mended

        def close(self) -> None:
            source.close()

    return Mended()
