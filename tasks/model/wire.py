"""Answers of providers as they come over the network, mended before LiteLLM reads them.

Many servers speak the chat completions protocol, each with its own slips: a tool call without an
index, content as a list of parts, half an emoji in each of two deltas. LiteLLM drops or mixes up
what it does not expect. So each answer of this protocol is put into its plain form here, and what
LiteLLM would translate or lose is noted: the finish reason as it was sent, a refusal, the `[DONE]`.
Answers of other protocols pass through as they are.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.model.call_fragments import CallFragments
from tasks.model.text_parts import Halves, refusal_in, text_in

if TYPE_CHECKING:
    import httpx

_DATA = b"data:"
_DONE = "[DONE]"
#: Deltas of text.
_TEXTS = ("content", "reasoning_content")


@dataclass(slots=True)
class Noted:
    """Facts of the newest answer, as its provider sent them."""

    is_chat: bool = False  #: it spoke the chat completions protocol
    finish_reason: str = ""  #: empty where it gave none
    refused: bool = False
    done: bool = False  #: it said that nothing follows


_noted: ContextVar[Noted | None] = ContextVar("noted", default=None)


@contextmanager
def noted() -> Iterator[Noted]:
    """Mend the answers that come while this lasts, and note their facts."""
    facts = Noted()
    token = _noted.set(facts)
    try:
        yield facts
    finally:
        _noted.reset(token)


def mend(response: "httpx.Response") -> None:
    """Put an answer that comes within `noted` into its plain form, as it is read."""
    facts = _noted.get()
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    packed = response.headers.get("content-encoding", "identity") != "identity"
    if facts is None or packed or not response.is_success:
        return
    if kind.startswith("text/"):
        response.stream = _stream(response.stream, _Events(facts))
    elif kind.endswith("json"):
        response.headers.pop("content-length", None)
        response.stream = _stream(response.stream, _Document(facts))


class _Document:
    """One JSON document, mended as soon as it is whole."""

    def __init__(self, facts: Noted) -> None:
        self._facts, self._pieces = facts, list[bytes]()

    def feed(self, piece: bytes) -> bytes:
        self._pieces.append(piece)
        return b""

    def end(self) -> bytes:
        raw = b"".join(self._pieces)
        found = _chat(raw.decode("utf-8", "replace"))
        if found is None:
            return raw
        self._facts.is_chat = self._facts.done = True
        for place, choice in enumerate(_dicts(found["choices"])):
            _end(choice, self._facts, first=place == 0)
            message = choice.get("message")
            if isinstance(message, dict):
                _mend_message(message, self._facts)
        return json.dumps(found).encode()


def _mend_message(message: dict[str, Any], facts: Noted) -> None:
    facts.refused |= bool(refusal_in(message))
    message["content"] = text_in(message.get("content"))
    calls = _dicts(message.get("tool_calls"))
    for function in _dicts(
        [*(call.get("function") for call in calls), message.get("function_call")]
    ):
        function["arguments"] = arguments_text(function.get("arguments"))


class _Events:
    """Server-sent events, each mended as soon as its line is whole."""

    def __init__(self, facts: Noted) -> None:
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
        for place, choice in enumerate(_dicts(found["choices"])):
            _end(choice, self._facts, first=place == 0)
            delta = choice.get("delta")
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


def _end(choice: dict[str, Any], facts: Noted, *, first: bool) -> None:
    """Note the finish reason; an empty one is none."""
    choice["finish_reason"] = choice.get("finish_reason") or None
    if first and choice["finish_reason"]:
        facts.finish_reason = str(choice["finish_reason"])


def _chat(text: str) -> dict[str, Any] | None:
    """An object of the chat completions protocol, or None."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    is_chat = isinstance(found, dict) and isinstance(found.get("choices"), list)
    return found if is_chat else None


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _stream(source: Any, mender: _Document | _Events) -> Any:
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
