"""One request per tier, over real HTTP: who is asked, who is not, and what the caller learns."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.model import completion
from tasks.model.litellm import load
from tasks.model.reply import ModelError, Reply
from tests.fakes.answers import TEXT
from tests.fakes.provider import Provider
from tests.fixtures.marks import LITELLM_WARNINGS

pytestmark = LITELLM_WARNINGS

PROMPT = "the secret plan"
KEY = "sk-do-not-tell"

#: Models that do not answer in time; the others have as long as a busy machine needs.
HANG = {"hang", "stall", "trickle"}

#: What LiteLLM calls each fault, and whether waiting may help.
RETRYABLE = {
    "r429": "RateLimitError",
    "e500": "InternalServerError",
    "e503": "ServiceUnavailableError",
    "hang": "Timeout",
    "stall": "Timeout",
    "trickle": "Timeout",
    "drop": "InternalServerError",
    "cut": "InternalServerError",
    "badjson": "InternalServerError",
    "nochoices": "InternalServerError",
    "empty": "APIResponseValidationError",
}
NEVER_HERE = {
    "auth": "AuthenticationError",
    "forbidden": "APIError",
    "nomodel": "NotFoundError",
    "ctx": "ContextWindowExceededError",
    "policy": "ContentPolicyViolationError",
}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


def ask(provider: Provider, *models: str, within_s: float = 60.0, **more: Any) -> Reply:
    first, *fallbacks = (f"openai/{name}" for name in models)
    arguments: dict[str, Any] = {
        "model": first,
        "fallbacks": fallbacks,
        "messages": [{"role": "user", "content": PROMPT}],
        "timeout_s": 2.0 if HANG & set(models) else 30.0,
        "deadline": time.monotonic() + within_s,
        "params": {"api_base": provider.url, "api_key": KEY},
    }
    return completion.complete(**arguments | more)


@pytest.fixture(scope="module", autouse=True)
def warmed_up() -> None:
    """Import the models' packages, which takes longer than the tests' timeouts."""
    with Provider() as provider:
        ask(provider, "ok")
        refused(provider, "e503")


def refused(provider: Provider, *models: str, **more: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        ask(provider, *models, **more)
    return caught.value


def asked(provider: Provider) -> list[str]:
    return [request.model for request in provider.requests]


def test_a_whole_reply(provider: Provider) -> None:
    reply = ask(provider, "ok")
    assert reply.text == TEXT
    assert reply.message == {"role": "assistant", "content": TEXT}
    assert (reply.model, reply.tier, reply.finish_reason) == ("openai/ok", 1, "stop")
    assert (reply.tokens_in, reply.tokens_out) == (11, 8)
    assert [(a.model, a.error) for a in reply.attempts] == [("openai/ok", None)]


def test_the_price_of_a_known_model_and_of_an_unknown_one(provider: Provider) -> None:
    litellm = load()
    litellm.register_model(
        {"openai/delay-0": {"input_cost_per_token": 0.5, "output_cost_per_token": 2.0}}
    )
    assert ask(provider, "delay-0").usd == pytest.approx(11 * 0.5 + 8 * 2.0)
    assert ask(provider, "ok").usd is None


@pytest.mark.parametrize(("fault", "kind"), (RETRYABLE | NEVER_HERE).items())
def test_the_next_tier_is_asked_at_once_and_each_only_once(
    provider: Provider, fault: str, kind: str
) -> None:
    reply = ask(provider, fault, "ok")
    assert (reply.tier, reply.model, reply.text) == (2, "openai/ok", TEXT)
    assert [a.error for a in reply.attempts] == [kind, None]
    assert asked(provider) == [fault, "ok"]


@pytest.mark.parametrize(("fault", "kind"), RETRYABLE.items())
def test_what_may_pass_is_retryable(provider: Provider, fault: str, kind: str) -> None:
    error = refused(provider, fault)
    assert (error.kind, error.retryable) == (kind, True)
    assert asked(provider) == [fault]


@pytest.mark.parametrize(("fault", "kind"), NEVER_HERE.items())
def test_what_cannot_pass_is_not(provider: Provider, fault: str, kind: str) -> None:
    error = refused(provider, fault)
    assert (error.kind, error.retryable) == (kind, False)
    assert asked(provider) == [fault]


def test_a_bad_request_fails_at_once(provider: Provider) -> None:
    error = refused(provider, "badrequest", "ok")
    assert (error.kind, error.retryable) == ("BadRequestError", False)
    assert asked(provider) == ["badrequest"]


def test_one_tier_that_may_answer_later_makes_all_retryable(provider: Provider) -> None:
    error = refused(provider, "auth", "r429-30", "badrequest")
    assert (error.kind, error.retryable, error.retry_after_s) == ("RateLimitError", True, 30.0)
    assert [a.error for a in error.attempts] == [
        "AuthenticationError",
        "RateLimitError",
        "BadRequestError",
    ]


def test_the_shortest_wait_asked_for_counts(provider: Provider) -> None:
    assert refused(provider, "r429-30", "r429-4", "e503").retry_after_s == 4.0
    assert refused(provider, "e503").retry_after_s is None


def test_a_wait_may_be_a_date(provider: Provider) -> None:
    # In the past, so that the test needs no clock.
    assert refused(provider, "r429-Wed, 21 Oct 2015 07:28:00 GMT").retry_after_s == 0.0
    assert refused(provider, "r429-soon").retry_after_s is None


def test_no_tier_is_asked_without_time(provider: Provider) -> None:
    error = refused(provider, "ok", within_s=0.4)
    assert (error.kind, error.retryable, error.attempts) == ("Timeout", True, ())
    assert asked(provider) == []


def test_the_deadline_bounds_a_call_and_stops_the_tiers(provider: Provider) -> None:
    started = time.monotonic()
    error = refused(provider, "hang", "ok", within_s=2, timeout_s=60)
    assert 1.9 < time.monotonic() - started < 30
    assert (error.kind, error.retryable) == ("Timeout", True)
    assert asked(provider) == ["hang"]


def test_time_for_the_next_tier_may_be_left_over(provider: Provider) -> None:
    assert ask(provider, "hang", "ok").tier == 2


def test_a_tier_leaves_time_for_those_after_it(provider: Provider) -> None:
    reply = ask(provider, "hang", "ok", within_s=6, timeout_s=60)
    assert reply.tier == 2
    assert 2.5 < reply.attempts[0].seconds < 5


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ("https://127.0.0.1:{port}/v1", "it does not speak TLS as it should"),
        ("http://no-such-host.invalid/v1", "its name is not known"),
        ("http://127.0.0.1:1/v1", "no server listens at its address"),
    ],
)
def test_what_was_in_the_way_is_said(provider: Provider, base: str, why: str) -> None:
    params = {"api_base": base.format(port=provider.server_port), "api_key": KEY}
    error = refused(provider, "ok", params=params, timeout_s=10)
    assert error.retryable
    assert str(error).endswith(why)


def test_the_calls_share_a_connection_whatever_their_timeouts(provider: Provider) -> None:
    for timeout_s in (20.0, 21.0, 22.0):
        ask(provider, "ok", timeout_s=timeout_s)
    assert len(provider.connections) == 1


def test_tools_are_offered_and_called(provider: Provider) -> None:
    tools = [{"type": "function", "function": {"name": "search", "parameters": {}}}]
    reply = ask(provider, "tools", tools=tools)
    assert reply.finish_reason == "tool_calls"
    assert [call["function"]["name"] for call in reply.tool_calls] == ["search"]
    assert provider.requests[0].body["tools"] == tools
    messages = [
        {"role": "user", "content": PROMPT},
        reply.message,
        {"role": "tool", "tool_call_id": reply.tool_calls[0]["id"], "content": "42"},
    ]
    assert ask(provider, "tools", messages=messages, tools=tools).text == TEXT


def test_params_reach_every_tier(provider: Provider) -> None:
    params = {"api_base": provider.url, "api_key": KEY, "temperature": 0.3}
    ask(provider, "e503", "ok", params=params)
    assert [request.body["temperature"] for request in provider.requests] == [0.3, 0.3]


def test_params_cannot_bring_back_retries(provider: Provider) -> None:
    with pytest.raises(ValueError, match="params may not set num_retries"):
        ask(provider, "ok", params={"num_retries": 3})


def test_text_that_utf8_cannot_hold_is_replaced(provider: Provider) -> None:
    ask(provider, "ok", messages=[{"role": "user", "content": "a\ud800\x00b"}])
    assert provider.requests[0].body["messages"][0]["content"] == "a?\x00b"


def test_a_key_that_is_not_set_is_named(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    error = refused(provider, "ok", params={"api_base": provider.url})
    assert (error.kind, error.retryable) == ("AuthenticationError", False)
    assert (
        str(error) == "no model answered: openai/ok: AuthenticationError, OPENAI_API_KEY is not set"
    )
    error = refused(provider, "ok", model="gemini/flash", params={})
    assert (error.kind, error.retryable) == ("AuthenticationError", False)


def test_a_model_without_a_provider_is_named(provider: Provider) -> None:
    error = refused(provider, "ok", model="gpt-of-nobody", params={})
    assert (error.kind, error.retryable) == ("BadRequestError", False)
    assert str(error).endswith("gpt-of-nobody: BadRequestError, LiteLLM knows no such provider")


@pytest.mark.parametrize("fault", [*RETRYABLE, *NEVER_HERE, "badrequest"])
def test_neither_prompt_nor_key_is_in_an_error_or_a_log(
    provider: Provider,
    fault: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    error = refused(provider, fault)
    assert (error.__cause__, error.__context__) == (None, None)
    out, err = capfd.readouterr()
    for told in (str(error), repr(error.attempts), caplog.text, out, err):
        assert PROMPT not in told
        assert KEY not in told
        assert "Traceback" not in told
    assert "\n" not in str(error)
    assert KEY not in error.said
    assert fault in {"empty", *HANG} or error.said.startswith(f"openai/{fault}: ")
