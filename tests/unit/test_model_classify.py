"""Each of LiteLLM's exceptions says one of three things about the next call."""

from typing import Any

import httpx
import pytest

from tasks.model.errors import classify
from tasks.model.litellm import load
from tasks.model.reply import AttemptVerdict

#: name of the class, HTTP status of the provider's answer, verdict
TABLE = [
    ("Timeout", None, AttemptVerdict.RETRY),
    ("RateLimitError", 429, AttemptVerdict.RETRY),
    ("InternalServerError", 500, AttemptVerdict.RETRY),
    ("ServiceUnavailableError", 503, AttemptVerdict.RETRY),
    ("BadGatewayError", 502, AttemptVerdict.RETRY),
    ("APIConnectionError", None, AttemptVerdict.RETRY),
    ("MidStreamFallbackError", None, AttemptVerdict.RETRY),
    ("ContextWindowExceededError", 400, AttemptVerdict.NEXT_TIER),
    ("ContentPolicyViolationError", 400, AttemptVerdict.NEXT_TIER),
    ("AuthenticationError", 401, AttemptVerdict.NEXT_TIER),
    ("PermissionDeniedError", 403, AttemptVerdict.NEXT_TIER),
    ("NotFoundError", 404, AttemptVerdict.NEXT_TIER),
    ("BadRequestError", 400, AttemptVerdict.FAIL),
    ("UnprocessableEntityError", 422, AttemptVerdict.FAIL),
    # The class goes by the error's text; the status knows better.
    ("BadRequestError", 401, AttemptVerdict.NEXT_TIER),
    ("BadRequestError", 429, AttemptVerdict.RETRY),
    ("BadRequestError", 500, AttemptVerdict.RETRY),
]


def made(name: str, status: int | None) -> Exception:
    more: dict[str, Any] = {}
    if status is not None:
        request = httpx.Request("POST", "http://127.0.0.1/")
        more["response"] = httpx.Response(status, request=request)
    error: Exception = getattr(load().exceptions, name)(
        "m", model="m", llm_provider="openai", **more
    )
    return error


@pytest.mark.parametrize(("name", "status", "verdict"), TABLE)
def test_by_class_and_status(name: str, status: int | None, verdict: AttemptVerdict) -> None:
    assert classify(made(name, status)) is verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (402, AttemptVerdict.NEXT_TIER),
        (403, AttemptVerdict.NEXT_TIER),
        (413, AttemptVerdict.FAIL),
        (425, AttemptVerdict.RETRY),
        (529, AttemptVerdict.RETRY),
    ],
)
def test_an_error_without_a_class_of_its_own(status: int, verdict: AttemptVerdict) -> None:
    error = load().exceptions.APIError(status, "m", llm_provider="openai", model="m")
    assert classify(error) is verdict


def test_what_nobody_foresaw_may_pass() -> None:
    assert classify(KeyError("choices")) is AttemptVerdict.RETRY
