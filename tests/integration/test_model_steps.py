"""A model that gives no answer: the next one is asked, and nothing is paid for twice."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fleet.config.agents import AgentConfig
from fleet.ledger import Claim, operations, views
from fleet.store import Store
from fleet.turn.turn import Turn
from fleet.worker.lease import Lease
from tasks.execution import turns
from tasks.model import completion
from tasks.runners.llm import LlmRunner
from tests.fakes.provider import Provider
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.marks import LITELLM_WARNINGS

pytestmark = [*LITELLM_WARNINGS, pytest.mark.usefixtures("fleet_here")]


class Killed(BaseException):
    """The worker dies."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
def books(store: Store) -> Books:
    retry = {"attempts": 2, "backoff_s": 0, "min_age_s": 0}
    return Books(store, settings_for("a", retry=retry))


@pytest.fixture
def lease(books: Books) -> Lease:
    return books.held()


RunTurn = Callable[..., tuple[str, dict[str, Any]]]


@pytest.fixture
def run(books: Books, provider: Provider) -> RunTurn:
    """Run a claimed turn with these models; the state and the record afterwards."""

    def run(claim: Claim, *models: str, **more: Any) -> tuple[str, dict[str, Any]]:
        turn = turn_of(books, provider, claim, *models, **more)
        state = turns.commit(turn, turns.run(turn))
        return str(state), views.get(books.store, claim.dispatch_id, content=True) or {}

    return run


def turn_of(books: Books, provider: Provider, claim: Claim, *models: str, **more: Any) -> Turn:
    first, *fallbacks = (f"openai/{name}" for name in models)
    params = {"api_base": provider.url, "api_key": "k"}
    agent = AgentConfig(model=first, fallbacks=tuple(fallbacks), params=params, **more)
    deadline = time.monotonic() + 60
    return Turn(claim=claim, agent=agent, deadline=deadline, ledger=books.ledger)


@pytest.mark.parametrize("kind", ["refused", "withheld", "spent", "silent", "cutcall"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_next_model_answers(
    books: Books, lease: Lease, run: RunTurn, kind: str, stream: bool
) -> None:
    books.accept()
    state, record = run(books.claimed(lease), kind, "ok", stream=stream)
    assert (state, record["tier"], "cut" in record) == ("completed", 2, False)
    # Both answers are paid for.
    assert (record["tokens_in"], record["steps"][0]["tier"]) == (22, 1)


@pytest.mark.parametrize(
    ("kind", "error_kind", "state"),
    [
        ("refused", "ModelRefused", "dead"),
        ("silent", "EmptyAnswer", "retrying"),
        ("nulltext", "EmptyAnswer", "retrying"),
    ],
)
def test_a_dispatch_without_an_answer_is_not_completed(
    books: Books, lease: Lease, run: RunTurn, kind: str, error_kind: str, state: str
) -> None:
    books.accept()
    ended, record = run(books.claimed(lease), kind)
    assert (ended, record["stage"], record["error_kind"]) == (state, "llm", error_kind)
    assert record["tokens_in"] == 11


def test_a_turn_that_is_killed_between_two_models_goes_on_with_the_second(
    books: Books,
    lease: Lease,
    provider: Provider,
    run: RunTurn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    books.accept()
    with monkeypatch.context() as dying:
        complete = completion.complete

        def dies_at_the_second(**asked: Any) -> Any:
            if asked.get("first", 1) > 1:
                raise Killed
            return complete(**asked)

        dying.setattr(completion, "complete", dies_at_the_second)
        with pytest.raises(Killed):
            LlmRunner().run(turn_of(books, provider, books.claimed(lease), "refused", "ok"))
    state, record = run(books.claimed(lease), "refused", "ok")
    assert (state, record["attempt"], record["tokens_in"]) == ("completed", 2, 22)
    assert (provider.count("refused"), provider.count("ok")) == (1, 1)


def test_silence_is_asked_again_in_the_next_attempt_and_then_given_up(
    books: Books, lease: Lease, provider: Provider, run: RunTurn
) -> None:
    books.accept()
    assert run(books.claimed(lease), "silent")[0] == "retrying"
    books.reclaim()
    state, record = run(books.claimed(lease), "silent")
    assert (state, provider.count("silent"), record["tokens_in"]) == ("dead", 2, 22)


def test_a_dead_letter_that_is_replayed_asks_anew(
    books: Books, lease: Lease, provider: Provider, run: RunTurn
) -> None:
    (dispatch_id,) = books.accept()
    assert run(books.claimed(lease), "refused")[0] == "dead"
    operations.replay(books.ledger, books.settings, dispatch_id)
    assert run(books.claimed(lease), "refused")[0] == "dead"
    assert provider.count("refused") == 2


def test_a_cut_answer_is_told_to_its_sender(books: Books, lease: Lease, run: RunTurn) -> None:
    books.accept()
    state, record = run(books.claimed(lease), "limited")
    assert (state, record["answer"], record["cut"]) == ("completed", "Half an ans", "length")


def test_silence_can_be_allowed(books: Books, lease: Lease, run: RunTurn) -> None:
    books.accept()
    state, record = run(books.claimed(lease), "silent", allow_empty=True)
    assert (state, record.get("answer", "")) == ("completed", "")
