"""One request to one model, and what came back: a paid answer, or a failure.

No text of a prompt, an answer or a provider's error reaches an exception's text or a log from here.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tasks.limits import CallTimeout, call_limit
from tasks.model import endings, wire
from tasks.model.errors import failure_of
from tasks.model.litellm import adapter
from tasks.model.reply import Attempt, AttemptVerdict, CallFailure, Demands, Message, Reply
from tasks.model.text_parts import text_in

logger = logging.getLogger(__name__)

#: A call's own limit comes after the limits of its parts, whose errors are more precise, and after
#: the turn's limit where that is nearer.
CALL_MARGIN_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """A response that the provider sent to its end; no answer where `failure` is set."""

    response: Any
    message: Message
    finish_reason: str
    failure: CallFailure | None

    def reply(self, model: str, tier: int, attempts: tuple[Attempt, ...]) -> Reply:
        """The answer as the reply of a tier."""
        usage = getattr(self.response, "usage", None)
        return Reply(
            text=self.message["content"] or "",
            tool_calls=tuple(self.message.get("tool_calls") or ()),
            message=self.message,
            model=model,
            tier=tier,
            tokens_in=int(getattr(usage, "prompt_tokens", 0) or 0),
            tokens_out=int(getattr(usage, "completion_tokens", 0) or 0),
            usd=_usd(self.response, model),
            finish_reason=self.finish_reason,
            attempts=attempts,
            cut="" if self.failure else endings.cut_by(self.finish_reason),
            failure=self.failure,
        )


def ask(
    call: Mapping[str, Any], demands: Demands, on_token: Callable[[str], None] | None
) -> ModelAnswer | CallFailure:
    """The answer to a request, or the failure of it; streamed where `on_token` gets its text."""
    with wire.recorded(streamed=on_token is not None) as facts:
        response = _streamed(call, demands, on_token, facts) if on_token else _whole(call)
    if isinstance(response, CallFailure):
        if facts.answered and response.verdict is AttemptVerdict.FAIL:
            # The provider took the request. LiteLLM calls an answer that it cannot read HTTP 400.
            return replace(response, verdict=AttemptVerdict.RETRY)
        return response
    if not getattr(response, "choices", None):
        kind, sentence = "APIResponseValidationError", f"{call['model']}: an answer without choices"
        return CallFailure(kind, AttemptVerdict.RETRY, sentence)
    choice = response.choices[0]
    message = _message(choice, offered=bool(call.get("tools")))
    reason = endings.reason_of(facts.finish_reason, choice)
    failure = endings.failure_in(
        call["model"],
        message,
        reason,
        refused=facts.refused,
        offered=bool(call.get("tools")),
        demands=demands,
    )
    return ModelAnswer(response=response, message=message, finish_reason=reason, failure=failure)


def _whole(call: Mapping[str, Any]) -> Any | CallFailure:
    """The response, or the failure."""
    model = adapter(call["model"])
    return _guarded(call, call["timeout"] + CALL_MARGIN_S, lambda: model.completion(**call))


def _streamed(
    call: Mapping[str, Any],
    demands: Demands,
    on_token: Callable[[str], None],
    facts: wire.AnswerFacts,
) -> Any | CallFailure:
    """The response from a stream, whose pieces of text go to `on_token` as they come."""
    ends_at = time.monotonic() + call["timeout"] + CALL_MARGIN_S
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    model = adapter(call["model"])
    stream = _guarded(
        call, ends_at - time.monotonic(), lambda: model.completion(**call, **streaming)
    )
    if isinstance(stream, CallFailure):
        return stream
    try:
        chunks = _read(call, stream, on_token, ends_at)
    finally:
        _hang_up(stream)
    if isinstance(chunks, CallFailure):
        return chunks
    finish_reason = facts.finish_reason if facts.is_chat else stream.received_finish_reason
    response = _guarded(
        call,
        ends_at - time.monotonic(),
        lambda: model.stream_chunk_builder(chunks, messages=call["messages"]),
    )
    if isinstance(response, CallFailure):
        return response
    if finish_reason or (demands.trust_done and facts.done and _is_whole(call, response)):
        return response
    # LiteLLM reports a cut connection as a normal end.
    cut = f"{call['model']}: the stream was cut"
    return CallFailure("MidStreamFallbackError", AttemptVerdict.RETRY, cut)


def _read(
    call: Mapping[str, Any], stream: Any, on_token: Callable[[str], None], ends_at: float
) -> list[Any] | CallFailure:
    chunks: list[Any] = []
    while (
        chunk := _guarded(call, ends_at - time.monotonic(), lambda: next(stream, None))
    ) is not None:
        if isinstance(chunk, CallFailure):
            return chunk
        chunks.append(chunk)
        if chunk.choices and (text := chunk.choices[0].delta.content):
            on_token(_encodable(text))
    return chunks


def _is_whole(call: Mapping[str, Any], response: Any) -> bool:
    """True where an answer without a finish reason shows by its content that it is whole."""
    choices = getattr(response, "choices", None)
    if not choices:
        return False
    message = _message(choices[0], offered=True)
    texts = [one["function"].get("arguments") or "" for one in message.get("tool_calls") or ()]
    if not texts and str(_format_of(call)).startswith("json"):
        texts = [message["content"] or ""]
    if not (texts or message["content"]) or not all(map(_is_json, texts)):
        return False
    logger.warning("%s: a stream without a finish reason is taken as whole", call["model"])
    return True


def _format_of(call: Mapping[str, Any]) -> Any:
    wanted = call.get("response_format")
    return wanted.get("type") if isinstance(wanted, Mapping) else "json" if wanted else ""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _hang_up(stream: Any) -> None:
    """End the request now, so that the provider stops and the connection is free.

    The garbage collector might do so while this thread holds the lock of the connection pool. It
    needs the same lock, so the thread would wait for itself.
    """
    source = getattr(stream, "completion_stream", None)
    # LiteLLM wraps the response differently for each family of providers.
    for part in ("http_response", "streaming_response"):
        if close := getattr(getattr(source, part, None), "close", None):
            close()
    if close := getattr(source, "close", None):
        close()


def _guarded(call: Mapping[str, Any], within_s: float, act: Callable[[], Any]) -> Any | CallFailure:
    """The result of `act`, or its exception as a value: raising from it would chain its text."""
    try:
        if within_s <= 0:
            raise CallTimeout
        with call_limit(within_s):
            return act()
    except CallTimeout:
        return CallFailure("Timeout", AttemptVerdict.RETRY, f"{call['model']}: it took too long")
    except Exception as exc:  # noqa: BLE001 - LiteLLM has no common base class; all are classified
        return failure_of(call, exc)


def _message(choice: Any, *, offered: bool) -> Message:
    """The assistant's message as plain JSON, with text as a string and calls as tool calls."""
    fields = choice.message.model_dump(exclude_none=True, exclude={"provider_specific_fields"})
    message: Message = plain({"role": "assistant", "content": None} | fields)
    message["content"] = text_in(message["content"])
    # Of before there were tools; the results go back as those of a tool's.
    if offered and (call := message.pop("function_call", None)) and not message.get("tool_calls"):
        message["tool_calls"] = [{"type": "function", "function": call}]
    return message


def plain(value: Any) -> Any:
    """The value with text that UTF-8 can encode, and null for NaN and infinities."""
    text = _encodable(json.dumps(value, ensure_ascii=False))
    return json.loads(text, parse_constant=lambda _name: None)


def _encodable(text: str) -> str:
    """The text with `?` for each lone surrogate, which no store and no provider accepts."""
    return text.encode("utf-8", "replace").decode()


def _usd(response: Any, model: str) -> float | None:
    try:
        usd = float(adapter(model).completion_cost(completion_response=response, model=model))
    except Exception:  # noqa: BLE001 - an unknown price, in whatever class, must not fail a paid call
        return None
    return usd if math.isfinite(usd) else None
