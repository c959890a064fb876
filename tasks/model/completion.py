"""One answer from a model, by the first of several tiers that answers.

LiteLLM is the adapter to the providers and nothing else: its own retries and fallbacks are off,
because they multiply (one error cost up to five requests), ignore deadlines and swallow signals.
So a tier is one request, the next tier is tried at once, and the ledger decides on a later attempt.

No text of a prompt, an answer or a provider's error reaches an exception or a log from here: a
provider's error may quote the prompt or the key.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from fleet.config.agents import ModelTier
from tasks.limits import CallTimeout, call_limit
from tasks.model.errors import CallFailure, classify, failure_of
from tasks.model.litellm import adapter, load
from tasks.model.reply import Attempt, AttemptVerdict, Gate, Message, ModelError, Reply
from tasks.model.tiers import Tier, tiers_of

__all__ = [
    "Attempt",
    "AttemptVerdict",
    "Message",
    "ModelError",
    "Reply",
    "classify",
    "complete",
    "load",
]

#: Less than this cannot hold a request and its answer, so no tier is called.
MIN_CALL_S = 0.5
#: A call's own limit comes after the limits of its parts, whose errors are more precise, and after
#: the turn's limit where that is nearer.
CALL_MARGIN_S = 0.5
#: Time kept for each tier to come, or its equal share of less: enough for a short answer.
RESERVE_S = 10.0

#: Parameters that `complete` sets itself.
RESERVED_PARAMS = frozenset(
    {
        "model",
        "messages",
        "tools",
        "timeout",
        "stream",
        "stream_options",
        "fallbacks",
        "max_retries",
        "num_retries",
        "mock_response",
        "callbacks",
        "logger_fn",
    }
)

#: No tier can be called now: all breakers are open, or the providers asked to be left alone.
PROVIDERS_OPEN = "ProvidersOpen"
#: The key is wrong, or not paid for: no other call with this key can succeed. Some providers answer
#: 403 for a single request, too.
_KEY_DENIED = frozenset({401, 402})
_DENIED = _KEY_DENIED | {403}
#: A rate limit, or the quota of the key.
_LIMITED = 429


def complete(
    *,
    model: str,
    fallbacks: Sequence[ModelTier | str] = (),
    messages: Sequence[Message],
    timeout_s: float,
    deadline: float,
    tools: Sequence[Mapping[str, Any]] | None = None,
    params: Mapping[str, Any] | None = None,
    on_token: Callable[[str], None] | None = None,
    on_restart: Callable[[], None] | None = None,
    gate: Gate | None = None,
) -> Reply:
    """The answer of `model`, otherwise of the first fallback that answers.

    Each tier gets one request of at most `timeout_s` seconds. It gets less where later tiers would
    have no time left before `deadline` (of `time.monotonic`). No tier starts with less than
    `MIN_CALL_S`. `params` are those of `model`; see `tiers_of` for a fallback's.

    With `on_token` the answer is streamed, and `on_token` gets its pieces of text. When a stream
    breaks, `on_restart` is called and the next tier starts anew; only the Reply counts. An error of
    either function is passed on.

    `gate` allows each request and gets its outcome; a tier that has an open breaker is skipped.
    Where no tier may be called now, `kind` is PROVIDERS_OPEN.

    Raises `ModelError`, and `ValueError` for reserved params.
    """
    tiers = tiers_of(model, fallbacks, params or {})
    request = _request(messages, tools, tiers)
    attempts: list[Attempt] = []
    failures: list[CallFailure] = []
    for number, tier in enumerate(tiers, start=1):
        left_s = deadline - time.monotonic()
        if left_s < MIN_CALL_S:
            failures.append(
                CallFailure("Timeout", AttemptVerdict.RETRY, f"{tier.model}: no time was left")
            )
            break
        limit_s = min(timeout_s, _share(left_s, len(tiers) - number))
        call = {**tier.call, **request, "model": tier.model, "timeout": limit_s}
        begin = on_restart if number > 1 else None
        attempt, answer = _try_tier(tier, call, gate, begin, on_token)
        attempts += [attempt] if attempt else []
        if not isinstance(answer, CallFailure):
            return _reply(answer, tier.model, number, tuple(attempts))
        failures.append(answer)
        if answer.verdict is AttemptVerdict.FAIL:
            break
    raise _no_answer(failures, tuple(attempts))


def _share(left_s: float, to_come: int) -> float:
    """The part of the time left for one tier, when `to_come` others may have to follow."""
    each_s = left_s / (to_come + 1)
    if each_s < 2 * MIN_CALL_S:
        return left_s
    return left_s - to_come * min(RESERVE_S, each_s)


def _request(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None,
    tiers: Sequence[Tier],
) -> dict[str, Any]:
    """The part of the request that is the same for every tier."""
    if reserved := RESERVED_PARAMS & set().union(*(tier.params for tier in tiers)):
        raise ValueError(f"params may not set {', '.join(sorted(reserved))}")
    call = {"messages": _plain(list(messages)), "max_retries": 0, "num_retries": 0}
    return call | {"tools": list(tools)} if tools else call


def _try_tier(
    tier: Tier,
    call: Mapping[str, Any],
    gate: Gate | None,
    begin: Callable[[], None] | None,
    on_token: Callable[[str], None] | None,
) -> tuple[Attempt | None, Any | CallFailure]:
    """One tier's answer, and its request: None where a breaker of it is open."""
    name = tier.model
    if gate is not None and (wait_s := gate.wait_s(tier.breaker, tier.key, call["timeout"])) > 0:
        sentence = f"{name}: {tier.breaker} is not called after its failures"
        return None, CallFailure(PROVIDERS_OPEN, AttemptVerdict.RETRY, sentence, wait_s)
    if begin is not None:
        begin()
    started = time.monotonic()
    answer = _whole(call) if on_token is None else _streamed(call, on_token)
    error = answer.kind if isinstance(answer, CallFailure) else None
    attempt = Attempt(model=name, seconds=time.monotonic() - started, error=error)
    if gate is not None and (wait_s := _report(gate, tier, answer)) > 0:
        # The key is still wrong, or the provider wants no call: this dispatch waits like the
        # others, and does not fail.
        sentence = f"{answer.sentence}; {tier.breaker} is not called again yet"
        return attempt, CallFailure(PROVIDERS_OPEN, AttemptVerdict.RETRY, sentence, wait_s)
    return attempt, answer


def _report(gate: Gate, tier: Tier, answer: Any | CallFailure) -> float:
    """Report an answer to the tier's breakers: a model that refuses a request works.

    Returns for how many seconds no request is made: above 0 where the provider asked for a wait, or
    where a trial was denied the key again.
    """
    if not isinstance(answer, CallFailure):
        return gate.report(tier.breaker, tier.key, "ok")
    told = answer.sentence, answer.retry_after_s
    denied = answer.kind == "AuthenticationError" or answer.status in _DENIED
    if answer.verdict is not AttemptVerdict.RETRY and not denied:
        return gate.report(tier.breaker, tier.key, "ok", *told)
    refusal: Literal["limited", "failed"] = "limited" if answer.status == _LIMITED else "failed"
    wait_s = gate.report(tier.breaker, tier.key, "denied" if denied else refusal, *told)
    key_denied = answer.kind == "AuthenticationError" or answer.status in _KEY_DENIED
    return wait_s if key_denied or (answer.retry_after_s and not denied) else 0.0


def _whole(call: Mapping[str, Any]) -> Any | CallFailure:
    """The response, or the failure."""
    model = adapter(call["model"])
    response = _guarded(call, call["timeout"] + CALL_MARGIN_S, lambda: model.completion(**call))
    if isinstance(response, CallFailure):
        return response
    return _validated(call, response)


def _streamed(call: Mapping[str, Any], on_token: Callable[[str], None]) -> Any | CallFailure:
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
    response = model.stream_chunk_builder(chunks, messages=call["messages"])
    return _validated(call, response)


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
    if stream.received_finish_reason is None:
        # LiteLLM reports a cut connection as a normal end.
        cut = f"{call['model']}: the stream was cut"
        return CallFailure("MidStreamFallbackError", AttemptVerdict.RETRY, cut)
    return chunks


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


def _validated(call: Mapping[str, Any], response: Any) -> Any | CallFailure:
    """The response, if it is a whole answer that the provider did not withhold."""
    name = call["model"]
    if not getattr(response, "choices", None):
        kind, sentence = "APIResponseValidationError", f"{name}: an answer without choices"
        return CallFailure(kind, AttemptVerdict.RETRY, sentence)
    if response.choices[0].finish_reason == "content_filter":
        kind, sentence = "ContentPolicyViolationError", f"{name}: the provider withheld its answer"
        return CallFailure(kind, AttemptVerdict.NEXT_TIER, sentence)
    return response


def _no_answer(failures: Sequence[CallFailure], attempts: tuple[Attempt, ...]) -> ModelError:
    made = [failure for failure in failures if failure.kind != PROVIDERS_OPEN]
    passing = _passing(made) or _passing(failures)
    waits = [f.retry_after_s for f in passing if f.retry_after_s is not None]
    return ModelError(
        f"no model answered: {'; '.join(failure.sentence for failure in failures)}",
        kind=(passing[0] if passing else failures[-1]).kind,
        retryable=bool(passing),
        retry_after_s=min(waits, default=None),
        attempts=attempts,
    )


def _passing(failures: Sequence[CallFailure]) -> list[CallFailure]:
    return [failure for failure in failures if failure.verdict is AttemptVerdict.RETRY]


def _reply(response: Any, model: str, tier: int, attempts: tuple[Attempt, ...]) -> Reply:
    choice = response.choices[0]
    fields = choice.message.model_dump(exclude_none=True, exclude={"provider_specific_fields"})
    message: Message = _plain({"role": "assistant", "content": None} | fields)
    usage = getattr(response, "usage", None)
    return Reply(
        text=message["content"] or "",
        tool_calls=tuple(message.get("tool_calls", ())),
        message=message,
        model=model,
        tier=tier,
        tokens_in=int(getattr(usage, "prompt_tokens", 0) or 0),
        tokens_out=int(getattr(usage, "completion_tokens", 0) or 0),
        usd=_usd(response, model),
        finish_reason=choice.finish_reason,
        attempts=attempts,
    )


def _plain(value: Any) -> Any:
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
