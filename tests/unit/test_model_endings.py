"""Each way in which a model can end its answer has one meaning, streamed or whole."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.model import completion
from tasks.model.completion import Demands, Reply
from tests.fakes.provider import Provider
from tests.fixtures.marks import LITELLM_WARNINGS

pytestmark = LITELLM_WARNINGS

TOOLS = [{"type": "function", "function": {"name": "lookup", "parameters": {}}}]
FORMS = ["whole", "streamed"]

#: Each failure's kind, and whether the same model may answer another time.
FAILURES = {
    "refused": ("ModelRefused", False),
    "withheld": ("ContentPolicyViolationError", False),
    "spent": ("AnswerCut", False),
    "cutcall": ("AnswerCut", False),
    "silent": ("EmptyAnswer", True),
    "nulltext": ("EmptyAnswer", True),
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


def ask(provider: Provider, kind: str, form: str = "whole", **more: Any) -> Reply:
    arguments: dict[str, Any] = {
        "model": f"openai/{kind}",
        "messages": [{"role": "user", "content": "the secret plan"}],
        "timeout_s": 60.0,
        "deadline": time.monotonic() + 90,
        "params": {"api_base": provider.url, "api_key": "k"},
        "on_token": str if form == "streamed" else None,
    }
    return completion.complete(**arguments | more)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("kind", "meaning"), FAILURES.items())
def test_what_is_no_answer_is_a_failure_that_is_paid_for(
    provider: Provider, kind: str, meaning: tuple[str, bool], form: str
) -> None:
    reply = ask(provider, kind, form, tools=TOOLS)
    assert reply.failure is not None
    assert (reply.failure.kind, reply.failure.verdict == "retry") == meaning
    assert (reply.tokens_in, reply.tokens_out, reply.cut) == (11, 8, "")
    assert "secret" not in reply.failure.sentence


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("kind", "cut"), [("limited", "length"), ("strange", "unknown")])
def test_a_cut_answer_is_marked_and_none_where_all_of_it_is_needed(
    provider: Provider, kind: str, cut: str, form: str
) -> None:
    reply = ask(provider, kind, form)
    assert (reply.cut, reply.failure, bool(reply.text)) == (cut, None, True)
    needed = ask(provider, kind, form, demands=Demands(whole=True))
    assert needed.failure is not None
    assert (needed.failure.kind, needed.failure.verdict) == ("AnswerCut", "next_tier")


@pytest.mark.parametrize("kind", ["noreason", "blank", "ok"])
def test_a_whole_document_needs_no_reason(provider: Provider, kind: str) -> None:
    reply = ask(provider, kind, demands=Demands(whole=True))
    assert (reply.cut, reply.failure, bool(reply.text)) == ("", None, True)


def test_a_provider_that_broke_off_may_answer_later(provider: Provider) -> None:
    reply = ask(provider, "broke")
    assert reply.failure is not None
    assert (reply.failure.kind, reply.failure.verdict) == ("AnswerBroken", "retry")


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_answer_may_be_allowed(provider: Provider, form: str) -> None:
    reply = ask(provider, "silent", form, demands=Demands(allow_empty=True))
    assert (reply.text, reply.failure) == ("", None)


@pytest.mark.parametrize("form", FORMS)
def test_a_call_by_the_old_name_is_a_call(provider: Provider, form: str) -> None:
    (call,) = ask(provider, "legacy", form, tools=TOOLS).tool_calls
    assert call["function"] == {"name": "lookup", "arguments": '{"q": "x"}'}


@pytest.mark.parametrize("kind", ["legacy", "tools"])
def test_a_call_of_a_tool_that_nobody_offered_is_no_answer(provider: Provider, kind: str) -> None:
    reply = ask(provider, kind)
    assert reply.failure is not None
    assert reply.failure.kind == "EmptyAnswer"


def test_what_failed_before_decides_too(provider: Provider) -> None:
    first = ask(provider, "silent")
    assert first.failure is not None
    with pytest.raises(completion.ModelError) as caught:
        ask(
            provider,
            "silent",
            fallbacks=["openai/nomodel"],
            first=2,
            earlier=[first.failure],
        )
    assert (caught.value.kind, caught.value.retryable) == ("EmptyAnswer", True)
    assert "openai/silent: its answer was empty; openai/nomodel" in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
class TestAnthropic:
    """The same meanings in another protocol, which LiteLLM translates."""

    def ask(self, provider: Provider, kind: str, form: str) -> Reply:
        params = {"api_base": provider.url.removesuffix("/v1"), "api_key": "k"}
        return ask(provider, kind, form, model=f"anthropic/{kind}", params=params)

    def test_an_answer(self, provider: Provider, form: str) -> None:
        reply = self.ask(provider, "ok", form)
        assert (reply.text, reply.failure, reply.cut) == ("all said", None, "")

    def test_a_cut_one(self, provider: Provider, form: str) -> None:
        assert self.ask(provider, "limited", form).cut == "length"

    @pytest.mark.parametrize(
        ("kind", "means"),
        [
            ("refused", {"ModelRefused", "ContentPolicyViolationError"}),
            ("spent", {"AnswerCut"}),
            ("silent", {"EmptyAnswer"}),
        ],
    )
    def test_none(self, provider: Provider, kind: str, means: set[str], form: str) -> None:
        reply = self.ask(provider, kind, form)
        assert reply.failure is not None
        assert reply.failure.kind in means

    def test_a_cut_stream(self, provider: Provider, form: str) -> None:
        if form == "streamed":
            with pytest.raises(completion.ModelError):
                self.ask(provider, "cut", form)
