"""A model without key, network and LiteLLM, for trials and demonstrations.

`echo/brief`            answers at once, repeating the last user message
`echo/slow-<seconds>`   the same after a wait; streamed, a word at a time
`echo/hang`             blocks and ignores its timeout, as a stuck library would

Tokens are words. The functions are those of LiteLLM that `tasks.model.completion` calls.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from routing.nearest_name import nearest
from tasks.model.reply import AttemptVerdict

PROVIDER = "echo"

#: At most so much of a message is repeated: the answer stays brief.
BRIEF_CHARS_MAX = 400

#: Each wait has a bound; an hour is longer than the limits of any turn.
WAIT_S_MAX = 3600.0
_SLOW = re.compile(r"slow-(\d{1,4}(?:\.\d+)?)")

Messages = Sequence[Mapping[str, Any]]


class EchoError(Exception):
    """An echo that fails, with its verdict on the next call."""

    verdict = AttemptVerdict.RETRY


class NotFoundError(EchoError):
    """A model that is not listed above."""

    verdict = AttemptVerdict.NEXT_TIER


class Timeout(EchoError):
    """A hang that has reached `WAIT_S_MAX`."""


class EchoStream:
    """An answer word by word, spread over the wait; joined, the words are the whole answer."""

    def __init__(self, model: str, messages: Messages) -> None:
        self.received_finish_reason: str | None = None
        self._chunks = self._spoken(model, _answer(messages))

    def __iter__(self) -> Iterator[Any]:
        return self._chunks

    def __next__(self) -> Any:
        return next(self._chunks)

    def _spoken(self, model: str, text: str) -> Iterator[Any]:
        words = re.findall(r"\S+\s*", text)
        for word in words:
            _wait(model, share=1 / len(words))
            yield SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=word))])
        self.received_finish_reason = "stop"


def serves(model: str) -> bool:
    """True for a model of this module, existing or not."""
    return model.startswith(f"{PROVIDER}/")


def fault_of(model: str) -> str | None:
    """The sentence about a model of this module that does not exist, else None."""
    name = model.removeprefix(f"{PROVIDER}/")
    if name in ("brief", "hang") or _SLOW.fullmatch(name):
        return None
    meant = nearest(name, ("brief", "hang", "slow-1"))
    known = f"did you mean {PROVIDER}/{meant}?" if meant else "known are brief, slow-N and hang"
    return f"there is no such echo; {known}"


def completion(*, model: str, messages: Messages, stream: bool = False, **_: Any) -> Any:
    """The response to `messages`, or a stream of it. Raises EchoError."""
    name = model.removeprefix(f"{PROVIDER}/")
    if stream:
        return EchoStream(name, messages)
    _wait(name)
    return _response(messages, _answer(messages))


def stream_chunk_builder(chunks: Sequence[Any], messages: Messages) -> Any:
    """The response that all pieces of a stream make."""
    return _response(messages, "".join(chunk.choices[0].delta.content for chunk in chunks))


def completion_cost(**_: Any) -> float:
    """Raises LookupError: an echo has no price."""
    raise LookupError


def _response(messages: Messages, text: str) -> Any:
    message = SimpleNamespace(model_dump=lambda **_: {"role": "assistant", "content": text})
    usage = SimpleNamespace(
        prompt_tokens=sum(len(_text(message).split()) for message in messages),
        completion_tokens=len(text.split()),
    )
    choice = SimpleNamespace(message=message, finish_reason="stop")
    return SimpleNamespace(choices=[choice], usage=usage)


def _wait(model: str, share: float = 1.0) -> None:
    if model == "brief":
        return
    if model == "hang":
        # In steps: a signal's handler must run even where sleep is not interrupted.
        ends_at = time.monotonic() + WAIT_S_MAX
        while time.monotonic() < ends_at:
            time.sleep(0.5)
        raise Timeout
    seconds = _SLOW.fullmatch(model)
    if seconds is None:
        raise NotFoundError
    time.sleep(share * min(float(seconds[1]), WAIT_S_MAX))


def _answer(messages: Messages) -> str:
    text = next((_text(m) for m in reversed(messages) if m.get("role") == "user"), "").strip()
    if not text:
        return "You said nothing."
    return f"You said: {text if len(text) <= BRIEF_CHARS_MAX else text[:BRIEF_CHARS_MAX] + '…'}"


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(str(part["text"]) for part in content if "text" in part)
