"""Each of LiteLLM's exceptions says one of three things about the next call."""

from typing import Any

import httpx
import pytest

from tasks.model import Verdict, classify, load

#: name of the class, HTTP status of the provider's answer, verdict
TABLE = [
    ("Timeout", None, Verdict.RETRY),
    ("RateLimitError", 429, Verdict.RETRY),
    ("InternalServerError", 500, Verdict.RETRY),
    ("ServiceUnavailableError", 503, Verdict.RETRY),
    ("BadGatewayError", 502, Verdict.RETRY),
    ("APIConnectionError", None, Verdict.RETRY),
    ("MidStreamFallbackError", None, Verdict.RETRY),
    ("ContextWindowExceededError", 400, Verdict.NEXT_TIER),
    ("ContentPolicyViolationError", 400, Verdict.NEXT_TIER),
    ("AuthenticationError", 401, Verdict.NEXT_TIER),
    ("PermissionDeniedError", 403, Verdict.NEXT_TIER),
    ("NotFoundError", 404, Verdict.NEXT_TIER),
    ("BadRequestError", 400, Verdict.FAIL),
    ("UnprocessableEntityError", 422, Verdict.FAIL),
    # The class goes by the error's text; the status knows better.
    ("BadRequestError", 401, Verdict.NEXT_TIER),
    ("BadRequestError", 429, Verdict.RETRY),
    ("BadRequestError", 500, Verdict.RETRY),
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
def test_by_class_and_status(name: str, status: int | None, verdict: Verdict) -> None:
    assert classify(made(name, status)) is verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (402, Verdict.NEXT_TIER),
        (403, Verdict.NEXT_TIER),
        (413, Verdict.FAIL),
        (425, Verdict.RETRY),
        (529, Verdict.RETRY),
    ],
)
def test_an_error_without_a_class_of_its_own(status: int, verdict: Verdict) -> None:
    error = load().exceptions.APIError(status, "m", llm_provider="openai", model="m")
    assert classify(error) is verdict


def test_what_nobody_foresaw_may_pass() -> None:
    assert classify(KeyError("choices")) is Verdict.RETRY
