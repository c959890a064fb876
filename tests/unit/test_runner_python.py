"""The `python` runner: which callables are agents, and which answer each value is."""

import asyncio
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

from fleet.config.agents import AgentConfig
from fleet.ledger import operations
from fleet.store import Store
from fleet.turn.live_text import BEGINNING, LiveText, subscribe
from fleet.turn.turn import Cancelled, Deadline, Turn, TurnFailed
from fleet.worker.lease import Lease
from tasks.limits import soft_limit
from tasks.runners import runner_for
from tests.fixtures.ledger import Books, settings_for
from tests.unit.test_turn import turn_for

_names = count()
FIXTURE = "tests.fixtures.async_agents"


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a"))


@pytest.fixture
def lease(books: Books) -> Lease:
    return books.held()


@pytest.fixture
def turn(books: Books, lease: Lease) -> Turn:
    books.accept(text="one two")
    return turn_for(books, books.claimed(lease))


@pytest.fixture(autouse=True)
def _signals_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ask(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a callable, or what a path names, as the agent of the one turn."""

    def asked(target: Any, turn: Turn = turn) -> str:
        path = target
        if not isinstance(target, str):
            module = ModuleType(f"made_for_a_test_{next(_names)}")
            module.agent = target  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)
            path = f"{module.__name__}:agent"
        turn.agent = AgentConfig(runner="python", python=path)
        return runner_for(turn.agent.runner).run(turn)

    return asked


@pytest.mark.parametrize("name", ["shop", "shop.method", "partly", "hidden"])
def test_whatever_gives_a_coroutine_is_awaited(ask: Any, name: str) -> None:
    assert ask(f"{FIXTURE}:{name}") == "called one two"


@pytest.mark.parametrize("name", ["stream", "sync_stream"])
def test_a_generator_says_what_it_yields_and_answers_all_of_it(
    books: Books, turn: Turn, ask: Any, name: str
) -> None:
    turn.live_text = LiveText(books.store, turn.claim)
    assert ask(f"{FIXTURE}:{name}") == "one two "
    turn.live_text.close()
    heard = subscribe(books.store, {turn.claim.dispatch_id: BEGINNING})[turn.claim.dispatch_id]
    assert "".join(piece.text for piece in heard.pieces) == "one two "


class Model(BaseModel):
    name: str
    amount: int = 2


@dataclasses.dataclass
class Data:
    name: str


ANSWERS = {
    "text": ("so \ud800 far", "so \ud800 far"),
    "nothing": (None, ""),
    "bytes": ("héllo".encode(), "héllo"),
    "a dict": ({"a": [1, None, "é"]}, '{"a":[1,null,"é"]}'),
    "a list": ([1, {"b": True}], '[1,{"b":true}]'),
    "a model": (Model(name="x"), '{"name":"x","amount":2}'),
    "a dataclass": (Data("x"), '{"name":"x"}'),
    "a number": (3.5, "3.5"),
    "a truth": (True, "true"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_each_kind_of_value_is_an_answer(ask: Any, kind: str) -> None:
    value, answer = ANSWERS[kind]

    async def later(_turn: Turn) -> Any:
        return value

    assert ask(lambda _turn: value) == answer
    assert ask(later) == answer


REFUSED = {
    "an object": (lambda: object(), "returned object"),
    "a function": (lambda: len, "returned builtin_function_or_method"),
    "bytes that are no text": (lambda: b"\xff", "returned bytes"),
    "an object in a list": (lambda: [object()], "returned list"),
    "a number that JSON does not have": (lambda: {"score": float("nan")}, "returned dict"),
    "an infinity": (lambda: float("inf"), "returned float"),
    "a generator of numbers": (lambda: iter([1]), "yielded int"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_answer_is_refused_in_one_sentence(ask: Any, kind: str) -> None:
    make, words = REFUSED[kind]
    with pytest.raises(TurnFailed, match=words) as refused:
        ask(lambda _turn: make())
    assert not refused.value.failure.retryable
    assert "agents.a.python" in str(refused.value)


UNFIT = {
    "a number": (3, "is int, which cannot be called"),
    "one that takes nothing": (lambda: "", "cannot be called with a turn alone"),
    "one that wants more": (lambda _turn, more: more, "cannot be called with a turn alone"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_cannot_be_an_agent_is_refused_in_one_sentence(ask: Any, kind: str) -> None:
    target, words = UNFIT[kind]
    with pytest.raises(TurnFailed, match=words) as refused:
        ask(target)
    assert not refused.value.failure.retryable
    assert "agents.a.python" in str(refused.value)


def test_an_async_generator_that_yields_no_text_is_refused_and_closed(ask: Any) -> None:
    closed = []

    async def numbers(_turn: Turn) -> Any:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    with pytest.raises(TurnFailed, match="yielded int"):
        ask(numbers)
    assert closed


@pytest.mark.parametrize("error", [ValueError, MemoryError, SystemExit, KeyboardInterrupt])
def test_what_a_coroutine_raises_passes_and_harms_no_later_turn(
    ask: Any, error: type[BaseException]
) -> None:
    async def fails(_turn: Turn) -> None:
        await asyncio.sleep(0)
        raise error("mine")

    with pytest.raises(error, match="mine"):
        ask(fails)
    assert ask(f"{FIXTURE}:shop") == "called one two"


def test_an_async_step_is_journalled_and_not_called_again(
    books: Books, lease: Lease, turn: Turn, ask: Any
) -> None:
    calls = []

    async def call(name: str) -> str:
        await asyncio.sleep(0)
        calls.append(name)
        return f"did {name}"

    async def agent(turn: Turn) -> str:
        first = await turn.step("call", "a", lambda: call("a"))
        both = await asyncio.gather(*(turn.step("call", n, partial(call, n)) for n in "bc"))
        return " ".join([first, turn.step("now", "d", lambda: "did d"), *both])

    assert ask(agent) == "did a did d did b did c"
    assert ask(agent, turn_for(books, books.claimed(lease))) == "did a did d did b did c"
    assert calls == ["a", "b", "c"]
    journal = books.ledger.steps(turn.claim.dispatch_id)
    assert [json.loads(journal[number])["result"] for number in "1234"] == [
        "did a",
        "did b",
        "did c",
        "did d",
    ]


def test_an_async_step_of_a_sync_agent_is_refused_in_one_sentence(
    books: Books, turn: Turn, ask: Any
) -> None:
    async def call() -> str:
        return "never"

    def refused(turn: Turn) -> str:
        return f"{turn.step('fetch', {}, call)}"

    with pytest.raises(TypeError, match=r"step 'fetch': .*await"):
        ask(refused)
    assert books.ledger.steps(turn.claim.dispatch_id) == {}


@pytest.mark.parametrize("grouped", [False, True])
def test_a_cancelled_dispatch_ends_at_the_next_async_step(
    books: Books, turn: Turn, ask: Any, grouped: bool
) -> None:
    async def call() -> str:
        return "done"

    async def agent(turn: Turn) -> str:
        operations.cancel(books.ledger, books.settings, turn.claim.dispatch_id, "enough")
        if not grouped:
            return str(await turn.step("call", {}, call))
        async with asyncio.TaskGroup() as group:
            group.create_task(turn.step("call", {}, call))
        return "never"

    with pytest.raises(Cancelled, match="enough"):
        ask(agent)


def remind(after_s: float = 0.05) -> threading.Timer:
    timer = threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    return timer


def test_the_soft_limit_cancels_and_lets_it_clean_up(ask: Any) -> None:
    seen = []

    async def waits(_turn: Turn) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0.01)
            seen.append("cleaned up")

    timer = remind()
    with pytest.raises(Deadline), soft_limit():
        ask(waits)
    timer.join()
    assert seen == ["cancelled", "cleaned up"]
    assert ask(f"{FIXTURE}:shop") == "called one two", "the loop goes on"


@pytest.mark.parametrize("sooner_s", [None, 0.05])
def test_the_soft_limit_breaks_into_what_blocks_the_loop(ask: Any, sooner_s: float | None) -> None:
    cleaned = []

    async def blocks(_turn: Turn) -> None:
        try:
            while True:
                time.sleep(0.05)  # noqa: ASYNC251 - that is what it is about
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    timer = remind(60 if sooner_s else 0.05)
    with pytest.raises(Deadline), soft_limit(sooner_s):
        ask(blocks)
    timer.cancel()
    timer.join()
    assert cleaned
    assert ask(f"{FIXTURE}:shop") == "called one two"


def test_an_answer_given_in_the_grace_counts(ask: Any) -> None:
    async def hurries(_turn: Turn) -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "as far as I came"
        return "never"

    timer = remind()
    with soft_limit():
        assert ask(hurries) == "as far as I came"
    timer.join()


def test_one_that_cancels_itself_did_not_run_out_of_time(ask: Any) -> None:
    async def gives_up(_turn: Turn) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError), soft_limit():
        ask(gives_up)


def test_tasks_left_over_are_cancelled_before_the_turn_is_over(
    ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[bool] = []
    kept: list[asyncio.Task[None]] = []

    async def left(error: Exception | None) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)
            if error:
                raise error

    async def agent(_turn: Turn) -> str:
        kept.extend(asyncio.create_task(left(error)) for error in (None, ValueError("secret")))
        await asyncio.sleep(0)
        return "done"

    with caplog.at_level(logging.WARNING):
        assert ask(agent) == "done"
    assert ended == [True, True]
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_the_loop_and_what_belongs_to_it_outlive_a_turn(ask: Any) -> None:
    loops, lock = [], asyncio.Lock()

    async def agent(_turn: Turn) -> None:
        async with lock:
            loops.append(asyncio.get_running_loop())

    ask(agent)
    ask(agent)
    assert loops[0] is loops[1]
