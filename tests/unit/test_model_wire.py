"""Answers as providers really send them, through LiteLLM: nothing is lost and nothing mixed up."""

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.config.agents import ModelTier
from tasks.model import completion
from tasks.model.call_fragments import CallFragments
from tasks.model.completion import Demands, Reply
from tests.fakes import odd_answers
from tests.fakes.provider import Provider
from tests.fixtures.marks import LITELLM_WARNINGS

pytestmark = [
    *LITELLM_WARNINGS,
    # Its text quotes the answer.
    pytest.mark.filterwarnings("error:.*serializer"),
]

TOOLS = [{"type": "function", "function": {"name": "lookup", "parameters": {}}}]
#: Each speaks the chat completions protocol through another part of LiteLLM.
PROVIDERS = ["openai", "groq", "hosted_vllm", "openrouter", "mistral"]
FORMS = ["whole", "streamed"]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


def ask(provider: Provider, model: str, form: str = "streamed", **more: Any) -> Reply:
    said: list[str] = []
    arguments: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "hi"}],
        "timeout_s": 60.0,
        "deadline": time.monotonic() + 90,
        "params": {"api_base": provider.url, "api_key": "k"},
        "on_token": said.append if form == "streamed" else None,
        "on_restart": said.clear,
    }
    reply = completion.complete(**arguments | more)
    if form == "streamed":
        assert "".join(said) == reply.text
    return reply


def called(reply: Reply) -> list[tuple[str, str]]:
    calls = [call["function"] for call in reply.tool_calls]
    return [(call["name"], call["arguments"]) for call in calls]


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "kind", ["onechunk", "noindex", "zeros", "noids", "repeated", "objects", "newids"]
)
def test_two_calls_are_two(provider: Provider, kind: str, form: str, name: str) -> None:
    reply = ask(provider, f"{name}/{kind}", form, tools=TOOLS)
    assert called(reply) == odd_answers.TWO_CALLS
    assert reply.failure is None
    assert len({call["id"] for call in reply.tool_calls}) == 2


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("kind", "text"),
    [("parts", "all said"), ("halves", f"a {odd_answers.EMOJI} b"), ("nodone", "all said")],
)
def test_the_text_is_whole(provider: Provider, kind: str, text: str, form: str, name: str) -> None:
    reply = ask(provider, f"{name}/{kind}", form)
    assert (reply.text, reply.message["content"], reply.failure) == (text, text, None)


@pytest.mark.parametrize("kind", ["baredone", "blank", "noreason"])
def test_a_stream_without_a_reason_is_taken_as_whole_where_that_is_known(
    provider: Provider, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(completion.ModelError, match="the stream was cut"):
        ask(provider, f"openai/{kind}")
    caplog.set_level(logging.WARNING)
    assert ask(provider, f"openai/{kind}", demands=Demands(trust_done=True)).text == "all said"
    assert "without a finish reason is taken as whole" in caplog.text
    assert "all said" not in caplog.text


def test_a_tier_can_be_known_for_it_alone(provider: Provider) -> None:
    tier = ModelTier(model="openai/baredone", trust_done=True)
    reply = ask(provider, "openai/blank", fallbacks=[tier])
    assert (reply.tier, reply.text) == (2, "all said")
    tier = ModelTier(model="openai/baredone", trust_done=False)
    with pytest.raises(completion.ModelError):
        ask(provider, "openai/e503", fallbacks=[tier], demands=Demands(trust_done=True))


@pytest.mark.parametrize("kind", ["cut", "baretorn"])
def test_half_a_stream_is_cut_whoever_is_trusted(provider: Provider, kind: str) -> None:
    params = {"api_base": provider.url, "api_key": "k", "response_format": {"type": "json_object"}}
    with pytest.raises(completion.ModelError):
        ask(provider, f"openai/{kind}", params=params, demands=Demands(trust_done=True))


def test_a_half_that_stays_alone_is_replaced(provider: Provider) -> None:
    assert ask(provider, "openai/lonehalf").text == "a \N{REPLACEMENT CHARACTER}"


class TestFragments:
    """Which call a fragment continues."""

    def calls(self, *fragments: dict[str, Any]) -> list[tuple[str, str]]:
        found: dict[int, list[str]] = {}
        calls = CallFragments()
        for fragment in fragments:
            mended = calls.mended(fragment)
            call = found.setdefault(mended["index"], ["", ""])
            call[0] += mended["function"].get("name", "")
            call[1] += mended["function"]["arguments"]
        return [(name, arguments) for name, arguments in found.values()]

    def test_an_id_may_come_late(self) -> None:
        assert self.calls(
            {"index": 0, "function": {"name": "a"}},
            {"index": 0, "id": "x", "function": {"arguments": "{}"}},
        ) == [("a", "{}")]

    def test_one_id_for_all_calls(self) -> None:
        assert self.calls(
            {"index": 0, "id": "x", "function": {"name": "a", "arguments": "{}"}},
            {"index": 1, "id": "x", "function": {"name": "b", "arguments": "{}"}},
        ) == [("a", "{}"), ("b", "{}")]

    def test_interleaved_by_index(self) -> None:
        assert self.calls(
            {"index": 0, "id": "x", "function": {"name": "a", "arguments": "{"}},
            {"index": 1, "id": "y", "function": {"name": "b", "arguments": "["}},
            {"index": 0, "function": {"arguments": "}"}},
            {"index": 1, "function": {"arguments": "]"}},
        ) == [("a", "{}"), ("b", "[]")]

    def test_the_same_tool_twice_without_ids_and_indexes(self) -> None:
        whole = {"function": {"name": "a", "arguments": json.dumps({"q": 1})}}
        assert self.calls(whole, whole) == [("a", '{"q": 1}')] * 2

    def test_what_has_no_sense_is_a_call_without_a_name(self) -> None:
        assert self.calls({"function": None}, {"index": "0", "id": 7}) == [("", ""), ("", "")]
