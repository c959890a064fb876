"""The parameters that each tier gets: an address and a key reach nobody but their own provider."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.config.agents import AgentConfig, ModelTier
from tasks.model import completion
from tasks.model.reply import Reply
from tests.fakes.provider import Provider
from tests.fixtures.marks import LITELLM_WARNINGS

pytestmark = LITELLM_WARNINGS

KEY = "sk-first"


@pytest.fixture
def first() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
def other() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


def ask(first: Provider, *fallbacks: ModelTier | str, **params: Any) -> Reply:
    return completion.complete(
        model="openai/e503",
        fallbacks=fallbacks,
        messages=[{"role": "user", "content": "x"}],
        timeout_s=30.0,
        deadline=time.monotonic() + 60.0,
        params={"api_base": first.url, "api_key": KEY, "temperature": 0.3, **params},
    )


def test_another_provider_gets_neither_the_key_nor_the_address(
    first: Provider, other: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", other.url)
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "sk-vllm")
    reply = ask(first, "hosted_vllm/ok", extra_headers={"x-secret": KEY}, organization=KEY)
    assert (reply.tier, reply.model) == (2, "hosted_vllm/ok")
    (request,) = other.requests
    assert (request.key, request.body["temperature"]) == ("sk-vllm", 0.3)
    assert first.count("ok") == 0


def test_another_address_gets_its_own_key(first: Provider, other: Provider) -> None:
    own = {"api_base": other.url, "api_key": "sk-other", "temperature": 0.9}
    assert ask(first, ModelTier(model="openai/ok", params=own)).tier == 2
    (request,) = other.requests
    assert (request.key, request.body["temperature"]) == ("sk-other", 0.9)
    assert KEY not in str(request)


@pytest.mark.parametrize(
    "provider", ["custom_openai", "litellm_proxy", "nvidia_nim", "perplexity", "zai"]
)
@pytest.mark.parametrize("on_token", [None, lambda _text: None])
def test_openais_key_of_the_environment_is_for_openai_only(
    first: Provider, other: Provider, monkeypatch: pytest.MonkeyPatch, provider: str, on_token: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    reply = completion.complete(
        model="openai/e503",
        fallbacks=[ModelTier(model=f"{provider}/ok", params={"api_base": other.url})],
        messages=[{"role": "user", "content": "x"}],
        timeout_s=30.0,
        deadline=time.monotonic() + 60.0,
        params={"api_base": first.url},
        on_token=on_token,
    )
    assert reply.tier == 2
    assert [request.key for request in first.requests] == [KEY]
    assert [request.key for request in other.requests] == ["none"]


def test_one_provider_and_address_share_the_params(first: Provider) -> None:
    assert ask(first, "openai/ok").tier == 2
    assert [request.key for request in first.requests] == [KEY, KEY]
    assert ask(first, ModelTier(model="openai/ok", params={"api_key": "sk-two"})).tier == 2
    assert first.requests[-1].key == "sk-two"


def test_fallbacks_are_names_or_tables() -> None:
    agent = AgentConfig.model_validate(
        {
            "model": "openai/a",
            "fallbacks": ["openai/b", {"model": "groq/c", "params": {"api_key": "k"}}],
        }
    )
    assert agent.fallbacks == (
        ModelTier(model="openai/b"),
        ModelTier(model="groq/c", params={"api_key": "k"}),
    )


@pytest.mark.parametrize(
    ("model", "params", "refused"),
    [
        ("openai/b", {"api_base": "http://gpu/v1"}, True),
        ("b", {"base_url": "http://gpu/v1"}, True),
        ("openai/b", {"api_base": "http://gpu/v1", "api_key": ""}, True),
        ("text-completion-openai/b", {"api_base": "http://gpu/v1"}, True),
        ("openai/b", {"api_base": "http://gpu/v1", "api_key": "none"}, False),
        ("ollama/b", {"api_base": "http://gpu:11434"}, False),
        ("groq/b", {"api_base": "http://gpu/v1"}, True),
        ("openai/b", {"temperature": 0.1}, False),
    ],
)
def test_an_address_without_a_key_is_refused_where_it_would_get_one_of_the_environment(
    model: str, params: dict[str, str], refused: bool
) -> None:
    config = {"model": "anthropic/a", "fallbacks": [{"model": model, "params": params}]}
    if refused:
        with pytest.raises(ValueError, match=f"the fallback {model} at an address of its own"):
            AgentConfig.model_validate(config)
    else:
        AgentConfig.model_validate(config)
