"""The callables that can be agents, and the answers that they declare."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from tasks.agent_callable import fault_of, return_fault_of


class Client:
    """Has no JSON form."""


class Text(str):
    """Is text."""

    __slots__ = ()


@dataclass
class Order:
    """Has a JSON form."""

    number: int


class Agent:
    """An agent with a state, as an instance."""

    def __call__(self, turn: Any) -> Client:
        return Client()

    def answer(self, turn: Any) -> Client:
        return Client()


def _plain(turn):
    return turn


def _text(turn: Any) -> str | None:
    return None


def _in_words(turn: Any) -> "dict[str, list[Order]]":
    return {}


def _annotated(turn: Any) -> Annotated[Literal["a", "b"], "one of them"]:
    return "a"


async def _later(turn: Any) -> Text:
    return Text()


def _promise(turn: Any) -> Awaitable[Order]:
    raise NotImplementedError


def _pieces(turn: Any) -> Iterator[str]:
    yield ""


def _unknown(turn: Any) -> "NoSuchName":  # type: ignore[name-defined]  # noqa: F821
    return turn


def _client(turn: Any) -> Client:
    return Client()


def _perhaps(turn: Any) -> "str | Client":
    return ""


def _marked(turn: Any) -> Annotated[Client, "mine"]:
    return Client()


def _listed(turn: Any) -> list[Client]:
    return []


def _function(turn: Any) -> Callable[[], str]:
    return str


async def _later_client(turn: Any) -> Client:
    return Client()


def _numbers(turn: Any) -> Iterator[int]:
    yield 1


async def _numbers_later(turn: Any) -> AsyncIterator[int]:
    yield 1


@functools.wraps(_client)
def _wrapped(*args: Any) -> Any:
    return _client(*args)


@pytest.mark.parametrize(
    "good",
    [_plain, _text, _in_words, _annotated, _later, _promise, _pieces, _unknown, Order, str, print],
)
def test_what_can_answer_has_no_fault(good: Any) -> None:
    assert fault_of(good) is None
    assert return_fault_of(good) is None


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (_client, "returns Client: an answer is"),
        (_perhaps, "returns Client"),
        (_marked, "returns Client"),
        (_listed, "Client]: an answer is"),
        (_function, "Callable"),
        (_later_client, "returns Client"),
        (_numbers, "yields int: a generator yields text"),
        (_numbers_later, "yields int"),
        (_wrapped, "returns Client"),
        (Agent(), "returns Client"),
        (Agent().answer, "returns Client"),
    ],
)
def test_a_declared_value_that_is_no_answer_is_named(bad: Any, words: str) -> None:
    assert fault_of(bad) is None
    assert words in str(return_fault_of(bad))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (7, "is int, which cannot be called"),
        (lambda: "", "cannot be called with a turn alone: too many positional arguments"),
        (lambda turn, more: "", "cannot be called with a turn alone: missing"),
        (Agent.answer, "cannot be called with a turn alone: missing"),
    ],
)
def test_what_cannot_be_called_with_a_turn_is_named(bad: Any, words: str) -> None:
    assert words in str(fault_of(bad))
