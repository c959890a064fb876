"""Answers that are not quite of the protocol, in bytes, through LiteLLM: what was said arrives."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.model import completion
from tasks.model.reply import ModelError, Reply
from tests.fakes import raw_answers
from tests.fakes.raw_answers import AMOUNTS, DOCUMENTS, EVENTS, SAID, TWO_CALLS
from tests.fixtures.marks import LITELLM_WARNINGS

pytestmark = LITELLM_WARNINGS

TOOLS = [{"type": "function", "function": {"name": "lookup", "parameters": {}}}]
#: Each speaks the chat completions protocol through another part of LiteLLM.
PROVIDERS = ["openai", "groq", "openrouter"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with raw_answers.serving() as url:
        yield url


def ask(url: str, model: str, *, streamed: bool, **more: Any) -> Reply:
    said: list[str] = []
    reply = completion.complete(
        model=model,
        messages=[{"role": "user", "content": "hi"}],
        timeout_s=60.0,
        deadline=time.monotonic() + 90,
        params={"api_base": url, "api_key": "k"},
        on_token=said.append if streamed else None,
        **more,
    )
    if streamed:
        assert "".join(said) == reply.text
    return reply


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("kind", EVENTS)
def test_a_stream_is_read(url: str, kind: str, name: str) -> None:
    reply = ask(url, f"{name}/{kind}", streamed=True)
    assert (reply.text, reply.failure, reply.cut) == (SAID, None, "")


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_document_is_read(url: str, kind: str, name: str) -> None:
    reply = ask(url, f"{name}/{kind}", streamed=False)
    assert (reply.text, reply.failure, reply.cut) == (SAID, None, "")


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("kind", TWO_CALLS)
def test_two_calls_in_a_document_are_two(url: str, kind: str, streamed: bool) -> None:
    reply = ask(url, f"openai/{kind}", streamed=streamed, tools=TOOLS)
    arguments = [call["function"]["arguments"] for call in reply.tool_calls]
    assert arguments == ['{"q": "one"}', '{"q": "two"}']
    assert len({call["id"] for call in reply.tool_calls}) == 2


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("kind", AMOUNTS)
def test_no_amount_of_tokens_lowers_or_breaks_a_budget(url: str, kind: str, streamed: bool) -> None:
    reply = ask(url, f"openai/{kind}", streamed=streamed)
    assert 0 <= reply.tokens_in < 1 << 40
    assert reply.tokens_out == 3


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        ("filtered", "ContentPolicyViolationError"),
        ("packedrefusal", "ModelRefused"),
    ],
)
def test_a_later_stop_makes_no_answer_of_it(url: str, kind: str, failure: str) -> None:
    reply = ask(url, f"openai/{kind}", streamed=True)
    assert reply.failure is not None
    assert reply.failure.kind == failure


@pytest.mark.parametrize("model", ["openai/sound", "openai/broke", "openrouter/unknown"])
def test_an_answer_that_cannot_be_read_may_be_asked_for_again(url: str, model: str) -> None:
    with pytest.raises(ModelError) as refusal:
        ask(url, model, streamed=True)
    assert refusal.value.retryable
