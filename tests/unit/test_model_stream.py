"""A streamed reply is the whole one or none: a cut, stalled or endless stream is an error."""

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tasks.model import completion
from tests.fakes.answers import TEXT
from tests.fakes.provider import Provider
from tests.fixtures.marks import LITELLM_WARNINGS
from tests.fixtures.processes import wait_until

pytestmark = LITELLM_WARNINGS


#: Models that do not answer in time; the others have as long as a busy machine needs.
SLOW = {"hang", "stall", "slow", "trickle"}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


def ask(
    provider: Provider, *models: str, on_token: Callable[[str], None], **more: Any
) -> completion.Reply:
    first, *fallbacks = (f"openai/{name}" for name in models)
    arguments: dict[str, Any] = {
        "model": first,
        "fallbacks": fallbacks,
        "messages": [{"role": "user", "content": "hi"}],
        "timeout_s": 1.5 if SLOW & set(models) else 30.0,
        "deadline": time.monotonic() + 60,
        "params": {"api_base": provider.url, "api_key": "sk-x"},
    }
    return completion.complete(**arguments | more, on_token=on_token)


@pytest.fixture(scope="module", autouse=True)
def warmed_up() -> None:
    """Import the models' packages, which takes longer than the tests' timeouts."""
    with Provider() as provider:
        ask(provider, "ok", on_token=lambda _: None)


def test_the_pieces_are_the_reply(provider: Provider) -> None:
    pieces: list[str] = []
    reply = ask(provider, "ok", on_token=pieces.append)
    assert "".join(pieces) == reply.text == TEXT
    assert len(pieces) > 1
    assert (reply.tokens_in, reply.tokens_out, reply.finish_reason) == (11, 8, "stop")


def test_tool_calls_come_whole(provider: Provider) -> None:
    tools = [{"type": "function", "function": {"name": "search", "parameters": {}}}]
    reply = ask(provider, "tools", on_token=pytest.fail, tools=tools)
    assert reply.finish_reason == "tool_calls"
    assert [c["function"] for c in reply.tool_calls] == [
        {"name": "search", "arguments": '{"q": "x"}'}
    ]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("cut", "MidStreamFallbackError"),
        ("stall", "MidStreamFallbackError"),
        ("slow", "Timeout"),
        ("trickle", "Timeout"),
        ("hang", "Timeout"),
        ("e503", "ServiceUnavailableError"),
        ("empty", "MidStreamFallbackError"),
        ("garbage", "MidStreamFallbackError"),
    ],
)
def test_a_broken_stream_goes_to_the_next_tier(provider: Provider, fault: str, kind: str) -> None:
    pieces: list[str] = []
    # What a broken tier said is void as soon as the next one begins.
    reply = ask(provider, fault, "ok", on_token=pieces.append, on_restart=pieces.clear)
    assert [a.error for a in reply.attempts] == [kind, None]
    assert (reply.text, reply.tier) == (TEXT, 2)
    assert "".join(pieces) == TEXT
    assert [request.model for request in provider.requests] == [fault, "ok"]


@pytest.mark.parametrize("fault", ["cut", "stall", "slow", "garbage"])
def test_a_broken_stream_alone_is_retryable(provider: Provider, fault: str) -> None:
    started = time.monotonic()
    with pytest.raises(completion.ModelError) as caught:
        ask(provider, fault, on_token=lambda _: None)
    assert caught.value.retryable
    assert time.monotonic() - started < 30
    assert provider.count(fault) == 1


def test_the_receivers_error_is_not_the_providers(provider: Provider) -> None:
    def broken(_: str) -> None:
        raise ConnectionError("the bus is gone")

    with pytest.raises(ConnectionError, match="the bus is gone"):
        ask(provider, "ok", "ok", on_token=broken)
    assert provider.count("ok") == 1


@pytest.mark.parametrize("name", ["openai/slow", "groq/slow"])
def test_the_provider_is_hung_up_on_at_once(provider: Provider, name: str) -> None:
    def broken(_: str) -> None:
        raise ConnectionError

    # Without the collector, which would hang up too, but at any moment.
    gc.disable()
    try:
        with pytest.raises(ConnectionError):
            ask(provider, "slow", on_token=broken, model=name)
        wait_until(lambda: not provider.connections)
    finally:
        gc.enable()
    assert provider.requests[0].finished is None
