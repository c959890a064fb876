"""A batch leaves the store as its events do one by one, whatever script accepts them."""

import re
from typing import Any

import pytest

from fleet.config.settings import parse
from fleet.errors import IdempotencyConflict, Refused, SessionBusy
from fleet.intake.intake import LOCAL, Sender, Submission
from fleet.ledger import Accepted
from fleet.store import Store, keys, open_store
from tests.fixtures.ledger import Books, contents
from tests.fixtures.machine import Flaky
from tests.fixtures.valkey import Valkey

ANY = {"runner": "python", "python": "nobody:nothing"}
SETTINGS = parse(
    {
        "agents": {
            "a": {**ANY, "max_pending": 8},
            "b": {**ANY, "max_pending": 4, "overflow": "drop_oldest"},
            "c": {**ANY, "max_pending": 100, "on_busy": "coalesce"},
            "d": {**ANY, "max_pending": 100, "on_busy": "interrupt", "deliver": ["ops"]},
            "e": {**ANY, "max_pending": 100, "on_busy": "reject"},
            "f": {**ANY, "max_pending": 100},
        },
        "deliveries": {"ops": {"agent": "c"}},
        "chains": {"twice": {"stages": [{"agent": "a"}, {"agent": "c"}]}},
        "caps": {"max_waiting": 45, "sender_per_minute": 30},
    }
)


#: Of these each is plain, so that one call accepts many; among them are those that limits refuse.
LONG = (*range(14, 26), *range(60, 100))


def submissions() -> list[Submission]:
    """A hundred: many plain, and some of each other kind in between."""
    made: list[Submission] = []
    for n in range(100):
        fields: dict[str, Any] = {"id": f"e{n}", "to": "acde"[n % 4], "text": f"text {n}"}
        # One sender comes to its limit.
        sender = Sender(sent_by=f"token:{n}" if n % 2 else "token:often")
        if n in LONG:
            fields["to"] = "acf"[n % 3]
        elif n % 25 == 9:
            fields["to"] = "chain:twice"
        elif n % 20 == 13:
            # One of before: the same, or another of the same name.
            before = made[-3]
            assert isinstance(before.raw, dict)
            fields, sender = {**before.raw}, before.sender
            fields |= {"priority": n % 9} if n % 40 == 13 else {}
        elif n % 10 in (5, 7):
            fields["to"] = ["a", "b", "c"] if n % 10 == 5 else "b"
        elif n % 3 == 0:
            fields["session"] = f"s{n % 2}"
        made.append(Submission({**fields, "time": "2026-01-01T00:00:00Z"}, sender))
    return made


def verdict(answer: object) -> tuple[object, ...]:
    if isinstance(answer, Accepted):
        return answer.duplicate, answer.dispatches, answer.chain
    return type(answer), str(answer)


def left(store: Store) -> dict[str, Any]:
    """Everything in the store; entries of the bus without the server's own time."""
    found = contents(store)
    # A limit per minute is kept by the server's clock, and an epoch is drawn.
    epoch = found.pop(keys.EPOCH)
    found[keys.BUS] = [
        {name: value for name, value in fields.items() if value != epoch}
        for _, fields in found[keys.BUS]
    ]
    return found


def outcome(valkey: Valkey, sizes: list[int]) -> tuple[list[tuple[object, ...]], dict[str, Any]]:
    """The answers to all events, sent in batches of these sizes, and what the store has then."""
    store = Flaky(open_store(valkey.url).client, {})
    store.client.flushall()
    store.client.hset(keys.POOLS, "f", "2 1 pool")
    books = Books(store, SETTINGS)
    rest, answers = submissions(), list[tuple[object, ...]]()
    for size in sizes:
        answers += map(verdict, books.intake.accept_batch(rest[:size]))
        rest = rest[size:]
    assert not rest
    found = left(store)
    store.close()
    return answers, found


@pytest.mark.parametrize("sizes", [[100], [7] * 14 + [2], [50, 1, 49]])
def test_a_batch_is_its_events_one_by_one(valkey: Valkey, sizes: list[int]) -> None:
    answers, found = outcome(valkey, [1] * 100)
    kinds = {answer[0] for answer in answers}
    assert kinds == {True, False, Refused, SessionBusy, IdempotencyConflict}
    limits = set(re.findall(r"max_\w+|sender_per_minute", str(answers)))
    assert limits == {"max_pending", "max_waiting", "sender_per_minute"}
    assert outcome(valkey, sizes) == (answers, found)


def test_a_plain_event_is_the_same_by_either_script(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outcome(valkey, [100])
    monkeypatch.setattr("fleet.store.calls.EventArgs.is_plain", False)
    assert outcome(valkey, [100]) == expected


def test_no_acceptance_has_the_number_of_another(store: Store) -> None:
    books = Books(store, SETTINGS)
    for _ in range(2):
        # The second time, all are known: no number is taken.
        books.intake.accept_batch(
            [Submission({"id": f"{n}", "to": "c", "text": "x"}, LOCAL) for n in range(25)]
        )
    books.accept("c")
    found: Any = store.client.zrange(keys.INDEX, 0, -1, withscores=True)
    assert [score for _, score in found] == list(range(1, 27))
