"""The reason of a failed call, in a sentence without content, and its verdict on the next call.

No text of a prompt, an answer or a provider's error is in a sentence: a provider's error may quote
the prompt or the key. What it said goes beside the sentence, as content, without the key.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fleet.formats import retry_after
from tasks.model import echo
from tasks.model.litellm import load
from tasks.model.reply import AttemptVerdict, CallFailure

#: The provider refuses the request itself. Other 4xx mean "not here", except these: "not now".
_OUR_FAULT_STATUS = frozenset({400, 413, 422})
_PASSING_STATUS = frozenset({408, 409, 425, 429})

#: Causes of a failed connection, without the address: it may hold a password.
_OBSTACLES: Mapping[type[BaseException], str] = {
    ssl.SSLCertVerificationError: "its certificate is not valid for this machine",
    ssl.SSLError: "it does not speak TLS as it should",
    socket.gaierror: "its name is not known",
    ConnectionRefusedError: "no server listens at its address",
}

#: A provider is asked again after this, however much longer it asks to be left alone.
RETRY_AFTER_MAX_S = 3600.0

#: Of a provider's own words; they are the same in each attempt, and a proxy's are a whole page.
SAID_CHARS_MAX = 1500

#: An exception's chain of causes is followed no further.
_CAUSES_MAX = 20


def classify(exc: Exception) -> AttemptVerdict:
    """The verdict of an exception from a LiteLLM call on the next call.

    An unknown exception is RETRY: LiteLLM's own faults over an answer have many classes.
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
        return AttemptVerdict.NEXT_TIER
    # LiteLLM goes by an error's text before its status, so these two may stand for any status.
    if isinstance(exc, errors.BadRequestError | errors.UnprocessableEntityError | errors.APIError):
        status = _status(exc)
        if status in _OUR_FAULT_STATUS:
            return AttemptVerdict.FAIL
        if status is not None and 400 <= status < 500 and status not in _PASSING_STATUS:
            return AttemptVerdict.NEXT_TIER
    return AttemptVerdict.RETRY


def failure_of(call: Mapping[str, Any], exc: Exception) -> CallFailure:
    """The failure that `exc`, raised by a call, means."""
    return replace(_failure_of(call, exc), said=_said(call, exc))


def _said(call: Mapping[str, Any], exc: Exception) -> str:
    """The body of the provider's error, else the error's text."""
    text = _body(exc) or str(exc)
    for name, value in call.items():
        if "key" in name and isinstance(value, str) and value:
            text = text.replace(value, "***")
    return text.strip()[:SAID_CHARS_MAX]


def _body(exc: Exception) -> str:
    try:
        return str(getattr(getattr(exc, "response", None), "text", "") or "")
    except Exception:  # noqa: BLE001 - a stream that was not read, in whatever class
        return ""


def _failure_of(call: Mapping[str, Any], exc: Exception) -> CallFailure:
    kind, model = type(exc).__name__, call["model"]
    if isinstance(exc, echo.EchoError):
        return CallFailure(kind, exc.verdict, f"{model}: {kind}")
    verdict = classify(exc)
    if headers := _headers(exc):
        status = _status(exc)
        sentence = f"{model}: {kind} (HTTP {status})"
        return CallFailure(kind, verdict, sentence, _asked_s(headers), status)
    if not provider_of(model):
        return CallFailure(kind, verdict, f"{model}: {kind}, LiteLLM knows no such provider")
    unset = _unset_keys(call)
    if unset and not _was_sent(exc):
        # With most providers LiteLLM calls this a server's or a connection's error.
        kind, verdict = "AuthenticationError", AttemptVerdict.NEXT_TIER
    hint = f"{' or '.join(unset)} is not set" if unset else _obstacle(exc)
    return CallFailure(kind, verdict, f"{model}: {kind}{', ' if hint else ''}{hint}")


def _asked_s(headers: Mapping[str, str]) -> float | None:
    wait_s = retry_after.seconds(headers)
    return None if wait_s is None else min(wait_s, RETRY_AFTER_MAX_S)


def provider_of(model: str) -> str | None:
    """LiteLLM's name of a model's provider, or None."""
    if echo.serves(model):
        return echo.PROVIDER
    litellm = load()
    try:
        return str(litellm.get_llm_provider(model)[1])
    except litellm.exceptions.BadRequestError:
        return None


def _unset_keys(call: Mapping[str, Any]) -> list[str]:
    """The variables for the model's API key, if none of them is set."""
    if call.get("api_key"):
        return []
    missing = load().validate_environment(model=call["model"])["missing_keys"]
    return sorted(name for name in missing if name.endswith("_API_KEY"))


def _was_sent(exc: Exception) -> bool:
    """True when the network was used: only then may waiting help."""
    import httpx

    return any(isinstance(cause, OSError | httpx.HTTPError) for cause in _causes(exc))


def _obstacle(exc: Exception) -> str:
    """The system's cause of a request without an answer; an empty string where it is unknown."""
    for cause in _causes(exc):
        for kind, words in _OBSTACLES.items():
            if isinstance(cause, kind):
                return words
    return ""


def _causes(exc: Exception) -> Iterator[BaseException]:
    cause: BaseException | None = exc
    for _ in range(_CAUSES_MAX):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _status(exc: Exception) -> int | None:
    """The provider's HTTP status; the number of the error's class where that is unknown."""
    response = getattr(exc, "response", None)
    status = getattr(response, "status_code", None) or getattr(exc, "status_code", None)
    return status if isinstance(status, int) else None


def _headers(exc: Exception) -> Mapping[str, str]:
    """The provider's headers; empty when it sent no answer."""
    return getattr(exc, "litellm_response_headers", None) or {}
