"""The journal of a turn: a finished step is never run again, and is found in any order."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import Fenced
from fleet.ledger import Claim, Cost, operations, views
from fleet.store import Store, open_store
from fleet.turn.live_text import BEGINNING, Kind, LiveText, subscribe
from fleet.turn.turn import Cancelled, Turn
from fleet.worker.lease import Lease
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.valkey import Valkey


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a"))


class Provider:
    """Counts its calls, as a provider's bill does."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, request: Any, result: Any = None) -> Any:
        self.calls.append(request)
        return result if result is not None else {"echo": request, "tokens_in": 3, "usd": 0.5}


def ring() -> list[Any]:
    """A list that holds itself."""
    found: list[Any] = []
    found.append(found)
    return found


def turn_for(books: Books, claim: Claim) -> Turn:
    agent = books.settings.agents[claim.agent]
    return Turn(claim=claim, agent=agent, deadline=time.monotonic() + 60, ledger=books.ledger)


def ask(turn: Turn, provider: Provider, *requests: Any) -> list[Any]:
    return [turn.step("ask", request, partial(provider, request)) for request in requests]


def lost_and_claimed_again(books: Books, lease: Lease) -> Turn:
    """The worker dies in mid-turn; the next attempt begins."""
    return turn_for(books, books.claimed(lease))


def test_a_later_attempt_resumes_at_its_first_unfinished_step(books: Books) -> None:
    lease, provider = books.held(), Provider()
    books.accept()
    first = turn_for(books, books.claimed(lease))
    answers = ask(first, provider, "one", "two")
    second = lost_and_claimed_again(books, lease)
    assert second.claim.attempt == 2
    assert ask(second, provider, "one", "two", "three")[:2] == answers
    assert provider.calls == ["one", "two", "three"]


def test_steps_that_run_together_are_found_again_whichever_ended_first(books: Books) -> None:
    lease, wanted = books.held(), [("read", name) for name in "abc"]
    books.accept()
    first = turn_for(books, books.claimed(lease))

    def dies(places: Sequence[int]) -> Iterator[tuple[int, str]]:
        yield 2, "c1"
        yield 0, "a1"
        raise RuntimeError("the second never ends")

    with pytest.raises(RuntimeError):
        first.step_many(wanted, dies)
    second = lost_and_claimed_again(books, lease)
    answers = second.step_many(
        wanted, lambda places: [(place, f"{place} again") for place in places]
    )
    assert answers == ["a1", "1 again", "c1"]
    assert second.step("next", "d", lambda: second.steps) == 4


def test_a_replayed_step_is_counted_and_paid_once(books: Books) -> None:
    lease, provider = books.held(), Provider()
    books.accept()
    ask(turn_for(books, books.claimed(lease)), provider, "one")
    second = lost_and_claimed_again(books, lease)
    ask(second, provider, "one")
    assert (second.usage.tokens_in, second.usage.usd, second.steps) == (3, 0.5, 1)


def test_a_changed_request_runs_beside_the_old_result(books: Books) -> None:
    lease, provider = books.held(), Provider()
    (dispatch_id,) = books.accept()
    ask(turn_for(books, books.claimed(lease)), provider, "one", "two")
    second = lost_and_claimed_again(books, lease)
    ask(second, provider, "one", "TWO")
    assert provider.calls == ["one", "two", "TWO"]
    assert second.journal.changed == ["ask"]
    journal = books.ledger.steps(dispatch_id)
    assert {key: json.loads(text)["result"]["echo"] for key, text in journal.items()} == {
        "1": "one",
        "2": "two",
        "2.2": "TWO",
    }
    ask(lost_and_claimed_again(books, lease), provider, "one", "TWO", "two")
    assert len(provider.calls) == 3


def test_a_new_step_in_front_leaves_the_later_ones_their_results(books: Books) -> None:
    lease, provider = books.held(), Provider()
    books.accept()
    ask(turn_for(books, books.claimed(lease)), provider, "one", "two")
    second = lost_and_claimed_again(books, lease)
    ask(second, provider, "zero", "one", "two")
    assert provider.calls == ["one", "two", "zero"]
    assert second.journal.changed == []


def test_steps_in_threads_are_found_again_in_another_order(books: Books) -> None:
    lease, provider = books.held(), Provider()
    books.accept()
    first = turn_for(books, books.claimed(lease))
    both = threading.Barrier(2)

    def call(turn: Turn, name: str) -> Any:
        return turn.step("ask", name, lambda: (both.wait(10), provider(name))[1])

    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip("ab", pool.map(partial(call, first), "ab"), strict=True))
    second = lost_and_claimed_again(books, lease)
    assert {name: call(second, name) for name in "ba"} == answers
    assert sorted(provider.calls) == ["a", "b"]
    assert first.usage.tokens_in == second.usage.tokens_in == 6


def test_equal_steps_take_their_results_in_the_order_of_their_beginning(books: Books) -> None:
    lease, numbers = books.held(), count()
    books.accept()
    for _ in range(3):
        turn = turn_for(books, books.claimed(lease))
        found = [turn.step("draw", {}, lambda: next(numbers)) for _ in range(3)]
        assert found == [0, 1, 2]


def test_a_step_inside_another_is_no_occurrence_of_its_equal_outside(books: Books) -> None:
    lease, numbers = books.held(), count()
    books.accept()

    def draw(turn: Turn) -> int:
        return int(turn.step("draw", {}, lambda: next(numbers)))

    async def drawn(turn: Turn) -> int:
        await asyncio.sleep(0)
        return draw(turn)

    async def found(turn: Turn) -> list[int]:
        inner = turn.step("round", {}, lambda: draw(turn))
        return [inner, await turn.step("round", {}, lambda: drawn(turn)), draw(turn)]

    for _ in range(3):
        assert asyncio.run(found(turn_for(books, books.claimed(lease)))) == [0, 1, 2]


def test_an_earlier_version_s_journal_serves_its_steps(books: Books) -> None:
    """By position, with no occurrence in an entry; a changed step's old entry stood aside."""
    lease, provider = books.held(), Provider()
    (dispatch_id,) = books.accept()
    ask(turn_for(books, books.claimed(lease)), provider, "same", "same", "new", "old")
    key = f"fleet:journal:{dispatch_id}"
    for number, text in books.ledger.steps(dispatch_id).items():
        entry = json.loads(text)
        del entry["occurrence"]
        entry["result"] = int(number)
        books.store.client.hset(key, number, json.dumps(entry))
    books.store.client.hset(key, "3.aside.1", str(books.store.client.hget(key, "4")))
    books.store.client.hdel(key, "4")
    second = lost_and_claimed_again(books, lease)
    assert ask(second, provider, "old", "same", "new", "same") == [4, 1, 3, 2]
    assert provider.calls == ["same", "same", "new", "old"]


def test_the_same_request_under_another_name_is_another_step(books: Books) -> None:
    lease, provider = books.held(), Provider()
    books.accept()
    turn_for(books, books.claimed(lease)).step("ask", "x", lambda: provider("x"))
    lost_and_claimed_again(books, lease).step("tell", "x", lambda: provider("x"))
    assert len(provider.calls) == 2


def test_the_order_of_keys_makes_no_other_request(books: Books) -> None:
    lease, provider = books.held(), Provider()
    books.accept()
    ask(turn_for(books, books.claimed(lease)), provider, {"a": 1, "b": [2]})
    ask(lost_and_claimed_again(books, lease), provider, {"b": [2], "a": 1})
    assert len(provider.calls) == 1


def test_a_result_that_is_nothing_is_a_result(books: Books) -> None:
    lease = books.held()
    books.accept()
    calls: list[int] = []
    for _ in range(2):
        turn = turn_for(books, books.claimed(lease))
        assert turn.step("ask", "x", lambda: calls.append(1)) is None
    assert calls == [1]


def test_a_failed_step_is_not_journalled(books: Books) -> None:
    lease = books.held()
    (dispatch_id,) = books.accept()
    turn = turn_for(books, books.claimed(lease))
    with pytest.raises(ZeroDivisionError):
        turn.step("ask", "x", lambda: 1 / 0)
    assert books.ledger.steps(dispatch_id) == {}


ODD = {
    "an object": object(),
    "NaN": {"score": float("nan")},
    "infinity": [float("inf")],
    "a set": {1},
    "itself": ring(),
    "bytes": {"data": b"\xff"},
    "a strange cost": {"tokens_in": [1], "usd": "cheap", "at": object()},
}


@pytest.mark.parametrize("kind", ODD)
def test_a_request_without_a_json_form_is_refused_before_the_call(books: Books, kind: str) -> None:
    lease, provider = books.held(), Provider()
    books.accept()
    turn = turn_for(books, books.claimed(lease))
    with pytest.raises(TypeError, match="the request of step 'ask' is not a JSON value"):
        ask(turn, provider, ODD[kind])
    assert provider.calls == []


@pytest.mark.parametrize("kind", ODD)
def test_a_result_without_a_json_form_is_kept_and_refused_in_each_attempt(
    books: Books, kind: str
) -> None:
    lease, provider = books.held(), Provider()
    (dispatch_id,) = books.accept()
    for _ in range(2):
        turn = turn_for(books, books.claimed(lease))
        with pytest.raises(TypeError, match="the result of step 'ask', which is kept, is not"):
            turn.step("ask", "x", lambda: provider("x", ODD[kind]))
    assert provider.calls == ["x"]
    record = views.get(books.store, dispatch_id, content=True)
    assert record is not None
    json.dumps(record, allow_nan=False).encode()
    assert [step["name"] for step in record["steps"]] == ["ask"]


def test_what_was_paid_for_a_result_without_a_json_form_counts(books: Books) -> None:
    lease = books.held()
    (dispatch_id,) = books.accept()
    turn = turn_for(books, books.claimed(lease))
    with pytest.raises(TypeError):
        turn.step("ask", "x", lambda: {"tokens_in": 7, "raw": object()})
    assert books.record(dispatch_id)["tokens_in"] == "7"


def test_a_result_is_the_same_at_first_and_in_replay(books: Books) -> None:
    lease = books.held()
    books.accept()
    for _ in range(2):
        turn = turn_for(books, books.claimed(lease))
        found = turn.step("ask", "x", lambda: {1: ("a", "b\ud800"), "kind": Kind.TEXT})
        assert found == {"1": ["a", "b?"], "kind": "text"}
        assert type(found["kind"]) is str


def test_a_journal_with_nan_of_an_earlier_version_is_shown(books: Books) -> None:
    lease = books.held()
    (dispatch_id,) = books.accept()
    turn = turn_for(books, books.claimed(lease))
    turn.step("ask", "x", lambda: 1)
    key = f"fleet:journal:{dispatch_id}"
    text = books.ledger.steps(dispatch_id)["1"].replace('"result": 1', '"result": NaN')
    books.store.client.hset(key, "1", text)
    record = views.get(books.store, dispatch_id, content=True)
    assert record is not None
    assert [step["result"] for step in record["steps"]] == ["NaN"]


def test_a_cancelled_turn_stops_after_the_step_it_is_in(books: Books) -> None:
    """The step is kept: it was made and paid."""
    lease, provider = books.held(), Provider()
    (dispatch_id,) = books.accept()
    turn = turn_for(books, books.claimed(lease))
    ask(turn, provider, "one")
    assert operations.cancel(books.ledger, books.settings, dispatch_id, "changed my mind")
    with pytest.raises(Cancelled, match="changed my mind"):
        ask(turn, provider, "two", "three")
    assert provider.calls == ["one", "two"]
    assert sorted(books.ledger.steps(dispatch_id)) == ["1", "2"]


def test_an_old_attempt_writes_no_step(books: Books) -> None:
    lease, provider = books.held(), Provider()
    (dispatch_id,) = books.accept()
    old = turn_for(books, books.claimed(lease))
    new = lost_and_claimed_again(books, lease)
    with pytest.raises(Fenced):
        ask(old, provider, "late")
    assert books.ledger.steps(dispatch_id) == {}
    ask(new, provider, "one")


def test_a_holder_that_lost_its_lease_writes_no_step(books: Books) -> None:
    lease, provider = books.held(), Provider()
    books.accept()
    turn = turn_for(books, books.claimed(lease))
    lease.release()
    assert books.held().fence > turn.claim.fence
    with pytest.raises(Fenced):
        ask(turn, provider, "late")


@pytest.fixture
def durable(tmp_path: Path, _no_process_is_left: None) -> Iterator[Valkey]:
    server = Valkey(tmp_path, durable=True)
    yield server.start()
    server.kill()


def test_a_finished_step_waits_for_the_broker(durable: Valkey) -> None:
    """SIGKILLed while the model answered: the step is journalled when it is back, called once."""
    store = open_store(durable.url)
    books, provider = Books(store, settings_for("a")), Provider()
    lease = books.held()
    (dispatch_id,) = books.accept()
    turn = turn_for(books, books.claimed(lease))

    def call() -> Any:
        durable.kill()
        threading.Timer(0.3, durable.start).start()
        return provider("one")

    assert turn.step("ask", "one", call)["echo"] == "one"
    assert sorted(books.ledger.steps(dispatch_id)) == ["1"]
    assert provider.calls == ["one"]
    store.close()


def test_what_a_turn_says_belongs_to_its_step_and_needs_no_listener(books: Books) -> None:
    lease = books.held()
    books.accept()
    claim = books.claimed(lease)
    turn_for(books, claim).say("into the void")
    turn = turn_for(books, claim)
    turn.live_text = LiveText(books.store, claim)
    turn.say("Well, ")

    def call() -> str:
        turn.say("let me thi")
        turn.say_again()
        turn.say("let me see")
        return "seen"

    turn.step("look", {}, call)
    turn.live_text.close()
    pieces = subscribe(books.store, {claim.dispatch_id: BEGINNING})[claim.dispatch_id].pieces
    assert [(piece.step, piece.kind, piece.text) for piece in pieces] == [
        (0, "text", "Well, "),
        (1, "text", "let me thi"),
        (1, "fallback", ""),
        (1, "text", "let me see"),
    ]


@pytest.mark.parametrize("amount", [float("inf"), float("nan"), -5, 10**30, None])
def test_a_cost_that_cannot_be_added_up_is_none(amount: Any) -> None:
    cost = Cost.of({"tokens_in": amount, "tokens_out": 3, "usd": amount})
    assert cost == Cost(tokens_out=3)
