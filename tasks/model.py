"""One answer from a model, by the first of several tiers that gives one.

LiteLLM is the adapter to the providers and nothing else: its own retries and fallbacks are off,
because they multiply (one error cost up to five requests), ignore deadlines and swallow signals.
So a tier is one request, the next tier is tried at once, and trying again later is the ledger's
business. This module is the project's only door to LiteLLM; importing it is cheap, `load` is not.

No text of a prompt, an answer or a provider's error ever reaches an exception or a log from here:
a provider's error may quote the prompt or the key.
"""

import functools
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any

from tasks.reply import Attempt, Message, ModelError, Reply, Verdict

__all__ = [
    "Attempt",
    "Message",
    "ModelError",
    "Reply",
    "Verdict",
    "classify",
    "complete",
    "load",
]

#: Less than this cannot hold a request and its answer, so no tier is called.
MIN_CALL_S = 0.5

#: What `complete` decides itself.
RESERVED_PARAMS = frozenset(
    {
        *("model", "messages", "tools", "timeout", "stream", "stream_options", "fallbacks"),
        *("max_retries", "num_retries", "mock_response", "callbacks", "logger_fn"),
    }
)

#: The request is refused as it is; of the other 4xx these mean "not now", the rest "not here".
_OUR_FAULT_STATUS = frozenset({400, 413, 422})
_PASSING_STATUS = frozenset({408, 409, 425, 429})

#: An exception's chain of causes is followed no further.
_CAUSES_MAX = 20


@dataclass(frozen=True, slots=True)
class _Failure:
    kind: str
    verdict: Verdict
    sentence: str
    retry_after_s: float | None = None


@functools.cache
def load() -> ModuleType:
    """LiteLLM, imported once, silenced, without a look-up on the network, and with `echo/...`.

    Takes seconds of CPU. Call it before the fork and never inside a time limit: an import cut
    short leaves a half-made module behind for the rest of the process.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    # Else LiteLLM reads any .env file from here up to the root into this process's environment.
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    import litellm
    from litellm.llms.custom_httpx.http_handler import HTTPHandler

    from tasks.echo import PROVIDER, Echo

    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    litellm.disable_hf_tokenizer_download = True
    litellm.custom_provider_map = [{"provider": PROVIDER, "custom_handler": Echo()}]
    # One for all calls: LiteLLM's cache makes a client, and so a connection, for each new timeout.
    litellm.client_session = HTTPHandler().client
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        # It logs whole tracebacks, with the provider's text, of errors that are reported here.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name in ("openai", "httpx", "httpcore"):
        # Below WARNING they log prompts and URLs, and a URL may hold a key.
        logging.getLogger(name).setLevel(logging.WARNING)
    return litellm


def complete(
    *,
    model: str,
    fallbacks: Sequence[str] = (),
    messages: Sequence[Message],
    timeout_s: float,
    deadline: float,
    tools: Sequence[Mapping[str, Any]] | None = None,
    params: Mapping[str, Any] | None = None,
    on_token: Callable[[str], None] | None = None,
    on_restart: Callable[[], None] | None = None,
) -> Reply:
    """The answer of `model`, or else of the first fallback that gives one.

    Each tier gets one request of at most `timeout_s` seconds, and none starts with less than
    `MIN_CALL_S` left before `deadline` (of `time.monotonic`). `timeout_s` bounds each wait for
    data, and a stream as a whole; a trickled answer that is not streamed is left to the turn's
    time limit. `params` go to every tier.

    `on_token` asks for a stream and gets its pieces of text. When a stream breaks, the next tier
    starts from the beginning, and `on_restart` is called before; the Reply alone is the truth. An
    error of either is passed on.

    Raises `ModelError`, and `ValueError` for params that are decided here.
    """
    if reserved := RESERVED_PARAMS & set(params or ()):
        raise ValueError(f"params may not set {', '.join(sorted(reserved))}")
    call = dict(params or {}, messages=_plain(list(messages)), max_retries=0, num_retries=0)
    if tools:
        call["tools"] = list(tools)
    attempts: list[Attempt] = []
    failures: list[_Failure] = []
    for tier, name in enumerate((model, *fallbacks), start=1):
        left_s = deadline - time.monotonic()
        if left_s < MIN_CALL_S:
            failures.append(_Failure("Timeout", Verdict.RETRY, f"{name}: no time was left"))
            break
        call |= {"model": name, "timeout": min(timeout_s, left_s)}
        if tier > 1 and on_restart is not None:
            on_restart()
        started = time.monotonic()
        answer = _whole(call) if on_token is None else _streamed(call, on_token)
        error = answer.kind if isinstance(answer, _Failure) else None
        attempts.append(Attempt(model=name, seconds=time.monotonic() - started, error=error))
        if not isinstance(answer, _Failure):
            return _reply(answer, name, tier, tuple(attempts))
        failures.append(answer)
        if answer.verdict is Verdict.FAIL:
            break
    raise _no_answer(failures, tuple(attempts))


def classify(exc: Exception) -> Verdict:
    """What an exception from a LiteLLM call says about the next call.

    What is not known is RETRY: LiteLLM's own stumbling over an answer has many classes.
    """
    errors = load().exceptions
    never_here = (
        errors.ContextWindowExceededError,
        errors.ContentPolicyViolationError,
        errors.AuthenticationError,
        errors.PermissionDeniedError,
        errors.NotFoundError,
    )
    # Before BadRequestError, which two of these are.
    if isinstance(exc, never_here):
        return Verdict.NEXT_TIER
    # LiteLLM goes by an error's text before its status, so these two may stand for any status.
    if isinstance(exc, errors.BadRequestError | errors.UnprocessableEntityError | errors.APIError):
        status = _status(exc)
        if status in _OUR_FAULT_STATUS:
            return Verdict.FAIL
        if status is not None and 400 <= status < 500 and status not in _PASSING_STATUS:
            return Verdict.NEXT_TIER
    return Verdict.RETRY


def _whole(call: Mapping[str, Any]) -> Any | _Failure:
    """LiteLLM's response, or why there is none."""
    response = _guarded(call, lambda: load().completion(**call))
    if isinstance(response, _Failure):
        return response
    return response if getattr(response, "choices", None) else _malformed(call)


def _streamed(call: Mapping[str, Any], on_token: Callable[[str], None]) -> Any | _Failure:
    """The same from a stream, whose pieces of text go to `on_token` as they come."""
    ends_at = time.monotonic() + call["timeout"]
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    stream = _guarded(call, lambda: load().completion(**call, **streaming))
    if isinstance(stream, _Failure):
        return stream
    try:
        chunks = _read(call, stream, on_token, ends_at)
    finally:
        _hang_up(stream)
    if isinstance(chunks, _Failure):
        return chunks
    response = load().stream_chunk_builder(chunks, messages=call["messages"])
    return response if response and response.choices else _malformed(call)


def _read(
    call: Mapping[str, Any], stream: Any, on_token: Callable[[str], None], ends_at: float
) -> list[Any] | _Failure:
    chunks: list[Any] = []
    while (chunk := _guarded(call, lambda: next(stream, None))) is not None:
        if isinstance(chunk, _Failure):
            return chunk
        chunks.append(chunk)
        if chunk.choices and (text := chunk.choices[0].delta.content):
            on_token(_encodable(text))
        if time.monotonic() > ends_at:
            # The provider's timeout bounds each wait for data, not the stream.
            return _Failure("Timeout", Verdict.RETRY, f"{call['model']}: the stream took too long")
    if stream.received_finish_reason is None:
        # LiteLLM would report a cut connection as a normal end.
        cut = f"{call['model']}: the stream was cut"
        return _Failure("MidStreamFallbackError", Verdict.RETRY, cut)
    return chunks


def _hang_up(stream: Any) -> None:
    """End the request now, so that the provider stops and the connection is free.

    The garbage collector would do it too, but perhaps while this thread holds the lock of the
    connection pool, which that needs again: the thread would wait for itself.
    """
    source = getattr(stream, "completion_stream", None)
    # LiteLLM wraps the response differently for each family of providers.
    for part in ("http_response", "streaming_response"):
        if close := getattr(getattr(source, part, None), "close", None):
            close()
    if close := getattr(source, "close", None):
        close()


def _guarded(call: Mapping[str, Any], act: Callable[[], Any]) -> Any | _Failure:
    """What `act` answers, or its exception as a value: raising from it would chain its text."""
    try:
        return act()
    except Exception as exc:  # noqa: BLE001 - LiteLLM has no common base class; all are classified
        return _failure(call, exc)


def _failure(call: Mapping[str, Any], exc: Exception) -> _Failure:
    kind, verdict, model = type(exc).__name__, classify(exc), call["model"]
    if headers := _headers(exc):
        sentence = f"{model}: {kind} (HTTP {_status(exc)})"
        return _Failure(kind, verdict, sentence, _retry_after_s(headers))
    if not _provider(model):
        return _Failure(kind, verdict, f"{model}: {kind}, LiteLLM knows no such provider")
    unset = _unset_keys(call)
    if unset and not _was_sent(exc):
        # With most providers LiteLLM calls this a server's or a connection's error.
        kind, verdict = "AuthenticationError", Verdict.NEXT_TIER
    hint = f", {' or '.join(unset)} is not set" if unset else ""
    return _Failure(kind, verdict, f"{model}: {kind}{hint}")


def _malformed(call: Mapping[str, Any]) -> _Failure:
    return _Failure(
        "APIResponseValidationError", Verdict.RETRY, f"{call['model']}: an answer without choices"
    )


def _no_answer(failures: Sequence[_Failure], attempts: tuple[Attempt, ...]) -> ModelError:
    passing = [failure for failure in failures if failure.verdict is Verdict.RETRY]
    waits = [f.retry_after_s for f in passing if f.retry_after_s is not None]
    return ModelError(
        f"no model answered: {'; '.join(failure.sentence for failure in failures)}",
        kind=(passing[0] if passing else failures[-1]).kind,
        retryable=bool(passing),
        retry_after_s=min(waits, default=None),
        attempts=attempts,
    )


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
    """The same as JSON that UTF-8 can hold."""
    return json.loads(_encodable(json.dumps(value, ensure_ascii=False)))


def _encodable(text: str) -> str:
    """The same with `?` for each lone surrogate: no store and no provider could take those."""
    return text.encode("utf-8", "replace").decode()


def _usd(response: Any, model: str) -> float | None:
    try:
        return float(load().completion_cost(completion_response=response, model=model))
    except Exception:  # noqa: BLE001 - an unknown price, in whatever class, must not fail a paid call
        return None


def _provider(model: str) -> str | None:
    litellm = load()
    try:
        return str(litellm.get_llm_provider(model)[1])
    except litellm.exceptions.BadRequestError:
        return None


def _unset_keys(call: Mapping[str, Any]) -> list[str]:
    """The variables of which one should hold the model's API key, if none does."""
    if call.get("api_key"):
        return []
    missing = load().validate_environment(model=call["model"])["missing_keys"]
    return sorted(name for name in missing if name.endswith("_API_KEY"))


def _was_sent(exc: Exception) -> bool:
    """True when the network was tried: only then may waiting help."""
    import httpx

    cause: BaseException | None = exc
    for _ in range(_CAUSES_MAX):
        if cause is None:
            return False
        if isinstance(cause, OSError | httpx.HTTPError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _status(exc: Exception) -> int | None:
    """The HTTP status as the provider sent it; the class's own number where that is unknown."""
    response = getattr(exc, "response", None)
    status = getattr(response, "status_code", None) or getattr(exc, "status_code", None)
    return status if isinstance(status, int) else None


def _headers(exc: Exception) -> Mapping[str, str]:
    """The provider's headers; empty when it sent no answer."""
    return getattr(exc, "litellm_response_headers", None) or {}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds, from either of its forms; None where absent or unreadable."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
