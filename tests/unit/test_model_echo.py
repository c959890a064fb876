"""The echo model: no LiteLLM, no key, no network, and a hang worth a time limit."""

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tasks.model import completion
from tasks.model.reply import ModelError, Reply


class Stop(BaseException):
    """A soft limit that no `except Exception` below can swallow."""


@pytest.fixture
def soft_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def ask(
    name: str, *messages: dict[str, Any], on_token: Callable[[str], None] | None = None
) -> Reply:
    return completion.complete(
        model=name,
        messages=messages,
        timeout_s=10,
        deadline=time.monotonic() + 30,
        on_token=on_token,
    )


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


SYSTEM = {"role": "system", "content": "You are Archie."}


def test_it_repeats_the_last_user_message() -> None:
    reply = ask("echo/brief", SYSTEM, user("first"), user("and last"))
    assert reply.text == "You said: and last"
    assert (reply.tokens_in, reply.tokens_out) == (6, 4)
    assert (reply.usd, reply.finish_reason, reply.tier) == (None, "stop", 1)


def test_it_streams_the_same() -> None:
    pieces: list[str] = []
    reply = ask("echo/brief", SYSTEM, user("one  two\nthree"), on_token=pieces.append)
    assert "".join(pieces) == reply.text == "You said: one  two\nthree"
    assert len(pieces) == 5
    assert (reply.tokens_in, reply.tokens_out) == (6, 5)


def test_it_stays_brief() -> None:
    text = ask("echo/brief", user("x" * 100_000)).text
    assert len(text) < 500
    assert text.endswith("…")


@pytest.mark.parametrize("content", ["", "  ", None, []])
def test_it_answers_even_to_nothing(content: object) -> None:
    assert ask("echo/brief", user(content)).text == "You said nothing."


def test_it_reads_messages_made_of_parts() -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    assert ask("echo/brief", user(parts)).text == "You said: look"


def test_it_can_be_slow() -> None:
    started = time.monotonic()
    assert ask("echo/slow-0.6", user("hi")).text == "You said: hi"
    assert time.monotonic() - started >= 0.6


@pytest.mark.parametrize("name", ["echo/loud", "echo/slow-", "echo/slow-x", "echo/slow--1"])
def test_other_names_are_not_found(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        ask(name, user("hi"))
    assert (caught.value.kind, caught.value.retryable) == ("NotFoundError", False)


@pytest.mark.parametrize("on_token", [None, lambda _: None])
def test_a_hang_ignores_its_timeout_but_not_a_signal(
    on_token: Callable[[str], None] | None, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("soft_limit")
    started = time.monotonic()
    with pytest.raises(Stop):
        ask("echo/hang", user("hi"), on_token=on_token)
    assert time.monotonic() - started < 30
