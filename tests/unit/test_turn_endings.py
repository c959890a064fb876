"""The end of a turn whose code raises, or says of itself what a record cannot hold."""

import json
import re
import sys
from collections.abc import Callable
from itertools import count
from types import ModuleType
from typing import Any

import pytest

from fleet.config.agents import AgentConfig
from fleet.errors import ConfigError
from fleet.ledger import Failure, FailureStage, State, views
from fleet.store import Store, keys
from fleet.turn.turn import Turn, TurnFailed
from tasks.execution import turns
from tests.fixtures.ledger import Books, settings_for
from tests.unit.test_turn import turn_for

_names = count()

#: Runs a callable as the agent of a new dispatch, to its committed end.
RunAgent = Callable[[Callable[[Turn], Any]], str]


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a", retry={"attempts": 2, "min_age_s": 0}))


@pytest.fixture
def run_agent(books: Books, monkeypatch: pytest.MonkeyPatch) -> RunAgent:
    lease = books.held()

    def run(agent: Callable[[Turn], Any]) -> str:
        module = ModuleType(f"an_agent_of_a_test_{next(_names)}")
        module.agent = agent  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        (dispatch_id,) = books.accept()
        turn = turn_for(books, books.claimed(lease))
        turn.agent = AgentConfig(runner="python", python=f"{module.__name__}:agent")
        turns.commit(turn, turns.run(turn))
        return dispatch_id

    return run


def raises(error: BaseException) -> Callable[[Turn], Any]:
    def agent(_turn: Turn) -> Any:
        raise error

    return agent


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), KeyError("x"), OSError("x"), RuntimeError("x"), MemoryError(), EOFError()],
    ids=lambda error: type(error).__name__,
)
def test_an_ordinary_exception_is_tried_again(
    books: Books, run_agent: RunAgent, error: Exception
) -> None:
    record = books.record(run_agent(raises(error)))
    assert (record["state"], record["retryable"]) == (State.RETRYING, "1")
    assert re.fullmatch(
        rf"the agent's code raised {type(error).__name__} at \S*test_turn_endings\.py:\d+",
        record["error"],
    )


@pytest.mark.parametrize(
    "error",
    [
        *(AssertionError("x"), AttributeError("x"), ImportError("x"), ModuleNotFoundError("x")),
        *(NameError("x"), UnboundLocalError("x"), NotImplementedError("x"), SyntaxError("x")),
        *(TypeError("x"), ConfigError("x"), SystemExit(1), KeyboardInterrupt()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_defect_of_the_code_is_not_tried_again(
    books: Books, run_agent: RunAgent, error: BaseException
) -> None:
    record = books.record(run_agent(raises(error)))
    assert (record["state"], record["retryable"]) == (State.DEAD, "0")


def test_what_an_exception_says_is_told_to_those_who_may_see_content(
    books: Books, run_agent: RunAgent, caplog: pytest.LogCaptureFixture
) -> None:
    # pytest cannot pass the captured text of a lone surrogate between its processes.
    caplog.set_level("CRITICAL", "tasks.execution.turns")

    def agent(turn: Turn) -> None:
        turn.step("look", {}, lambda: 1)
        raise ValueError("the secret of Ada\ud800")

    dispatch_id = run_agent(agent)
    record = views.get(books.store, dispatch_id, content=True)
    assert record is not None
    assert [step["name"] for step in record["steps"]] == ["look"]
    (failure,) = record["failures"]
    assert (failure["kind"], failure["message"]) == ("ValueError", "the secret of Ada?")
    first, *_, last = failure["traceback"].splitlines()
    assert (first, last) == (
        "Traceback (most recent call last):",
        "ValueError: the secret of Ada?",
    )
    assert "test_turn_endings.py" in failure["traceback"].splitlines()[1], "not the fleet's own"
    assert "Ada" not in json.dumps(views.get(books.store, dispatch_id))
    assert not any("Ada" in json.dumps(entry.fields) for entry in books.bus())


def test_the_place_is_that_of_the_agents_own_code(books: Books, run_agent: RunAgent) -> None:
    def agent(_turn: Turn) -> None:
        json.loads("{")

    record = views.get(books.store, run_agent(agent))
    assert record is not None
    (failure,) = record["failures"]
    place = f"test_turn_endings.py:{agent.__code__.co_firstlineno + 1}"
    assert failure["place"].endswith(place)
    assert record["error"] == f"the agent's code raised JSONDecodeError at {failure['place']}"


def test_code_that_was_made_from_a_text_is_no_place(books: Books, run_agent: RunAgent) -> None:
    def agent(_turn: Turn) -> None:
        exec(compile("raise ValueError", "the secret of Ada.py", "exec"))  # noqa: S102

    record = books.record(run_agent(agent))
    assert re.search(r" at \S*test_turn_endings\.py:\d+$", record["error"])


def test_what_led_to_a_failure_of_its_own_is_kept_with_it(
    books: Books, run_agent: RunAgent
) -> None:
    def agent(_turn: Turn) -> None:
        try:
            json.loads("{")
        except ValueError as error:
            failure = Failure(stage=FailureStage.TOOL, reason="no sense", retryable=True)
            raise TurnFailed(failure) from error

    record = views.get(books.store, run_agent(agent), content=True)
    assert record is not None
    (failure,) = record["failures"]
    assert record["error"] == failure["reason"] == "no sense"
    assert failure["message"].startswith("JSONDecodeError: Expecting property name")
    assert "test_turn_endings.py:" in failure["place"]


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\N{GRINNING FACE}" * 100_000])
def test_what_was_said_is_bounded(books: Books, run_agent: RunAgent, text: str) -> None:
    def agent(_turn: Turn) -> None:
        try:
            raise ValueError(text)
        except ValueError:
            raise RuntimeError(text)  # noqa: B904 - its context is kept too

    dispatch_id = run_agent(agent)
    (stored,) = books.store.client.lrange(keys.failures(dispatch_id), 0, -1)
    assert len(str(stored).encode()) < 16_000


def test_no_secret_of_the_environment_is_kept(
    books: Books, run_agent: RunAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "sk-abcdefgh")

    def agent(_turn: Turn) -> None:
        raise ValueError("401 for sk-abcdefgh at https://ada:hunter2@shop.example/")

    record = views.get(books.store, run_agent(agent), content=True)
    assert record is not None
    (failure,) = record["failures"]
    assert failure["message"] == "401 for *** at https://***@shop.example/"
    assert not re.search("abcdefgh|hunter2", failure["traceback"].splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("state", "completed"), ("tokens_in", "x"), ("usd", 7), ("steps", -1), ("mine", "x")),
        *(("tier", "x"), ("tier", -1), ("tier", 10**30), ("model", float("nan"))),
        *(("model", "two\nlines"), ("model", "x" * 10_000), ("injected", "maybe")),
    ],
)
def test_a_fact_that_no_record_has_fails_the_turn_in_one_sentence(
    books: Books, run_agent: RunAgent, name: str, value: Any
) -> None:
    def agent(turn: Turn) -> str:
        turn.facts[name] = value
        return "done"

    record = views.get(books.store, run_agent(agent), content=True)
    assert record is not None
    assert (record["state"], record["steps"]) == (State.DEAD, [])
    assert record["error"].startswith(f"turn.facts: '{name}' is not a fact of a record")


def test_facts_of_a_model_are_in_the_record(books: Books, run_agent: RunAgent) -> None:
    def agent(turn: Turn) -> str:
        turn.facts.update(model="mine/large", tier=1)
        return "done"

    record = views.get(books.store, run_agent(agent))
    assert record is not None
    assert (record["model"], record["tier"], record["state"]) == ("mine/large", 1, "completed")
