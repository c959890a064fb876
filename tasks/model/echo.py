"""A model without key and network, on LiteLLM's own code path.

`echo/brief`            answers at once, repeating the last user message
`echo/slow-<seconds>`   the same after a wait; streamed, a word at a time
`echo/hang`             blocks and ignores its timeout, as a stuck library would

Tokens are words. Only `tasks.model.litellm.load` imports this module, because the environment that
keeps LiteLLM off the network must be set before LiteLLM is imported.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from litellm.exceptions import NotFoundError, Timeout
from litellm.llms.custom_llm import CustomLLM
from litellm.types.llms.openai import ChatCompletionUsageBlock
from litellm.types.utils import GenericStreamingChunk, ModelResponse, Usage

PROVIDER = "echo"

#: At most so much of a message is repeated: the answer stays brief.
BRIEF_CHARS_MAX = 400

#: Each wait has a bound; an hour is longer than the limits of any turn.
WAIT_S_MAX = 3600.0

Messages = Sequence[Mapping[str, Any]]


class Echo(CustomLLM):
    """LiteLLM's provider `echo`: the same messages get the same answer.

    Raises LiteLLM's `NotFoundError` for a model not listed above, and `Timeout` when a hang
    reaches `WAIT_S_MAX`.
    """

    def completion(self, *_: Any, **call: Any) -> ModelResponse:
        """Answer in one piece."""
        _wait(call["model"])
        text = _answer(call["messages"])
        response: ModelResponse = call["model_response"]
        response.choices[0].finish_reason = "stop"
        response.choices[0].message.content = text
        response.usage = Usage(**_usage(call["messages"], text))  # type: ignore[attr-defined]
        return response

    def streaming(self, *_: Any, **call: Any) -> Iterator[GenericStreamingChunk]:
        """Answer word by word, spread over the wait; joined, the words are the whole answer."""
        text = _answer(call["messages"])
        words = re.findall(r"\S+\s*", text)
        for word in words:
            _wait(call["model"], share=1 / len(words))
            yield _chunk(word)
        yield _chunk("", usage=_usage(call["messages"], text))


def _wait(model: str, share: float = 1.0) -> None:
    if model == "brief":
        return
    if model == "hang":
        # In steps: a signal's handler must run even where sleep is not interrupted.
        ends_at = time.monotonic() + WAIT_S_MAX
        while time.monotonic() < ends_at:
            time.sleep(0.5)
        raise Timeout("the hang is over", model=model, llm_provider=PROVIDER)
    seconds = re.fullmatch(r"slow-(\d{1,4}(?:\.\d+)?)", model)
    if seconds is None:
        raise NotFoundError("no such echo model", model=model, llm_provider=PROVIDER)
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


def _usage(messages: Messages, answer: str) -> ChatCompletionUsageBlock:
    words_in = sum(len(_text(message).split()) for message in messages)
    words_out = len(answer.split())
    return ChatCompletionUsageBlock(
        prompt_tokens=words_in, completion_tokens=words_out, total_tokens=words_in + words_out
    )


def _chunk(text: str, usage: ChatCompletionUsageBlock | None = None) -> GenericStreamingChunk:
    return GenericStreamingChunk(
        text=text,
        is_finished=usage is not None,
        finish_reason="stop" if usage else "",
        usage=usage,
        index=0,
        tool_use=None,
    )
