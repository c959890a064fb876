"""The message about an outcome, in fields and as text."""

import json
from dataclasses import replace
from typing import Any

import pytest

from fleet.delivery.claims import PendingDelivery
from fleet.delivery.message import as_text, cloud_event, message

RECORD = {
    "id": "d1",
    "event_id": "e1",
    "source": "shop",
    "agent": "archie",
    "session": "",
    "attempt": "2",
    "generation": "1",
    "chain_id": "c1",
    "state": "whatever it is by now",
}
TRAIL = [
    {"n": 1, "stage": 2, "name": "gem", "round": 1, "agent": "gem", "state": "dead", "answer": "x"},
    {
        "n": 0,
        "stage": 1,
        "name": "a",
        "round": 1,
        "agent": "a",
        "state": "completed",
        "answer": "y",
    },
]


def told(outcome: str, answer: str = "", **about: str) -> PendingDelivery:
    named = {f"|{name}": value for name, value in about.items()}
    return PendingDelivery(
        name="d1",
        target="upstream",
        call="",
        record=RECORD,
        about={"|outcome": outcome, "|opened_ms": "1700000000000", **named},
        answer=answer,
        trail=tuple(map(json.dumps, TRAIL)) if "chain" in about else (),
    )


COMMON = {
    "dispatch_id": "d1",
    "event_id": "e1",
    "source": "shop",
    "agent": "archie",
    "session": None,
    "attempt": 2,
    "generation": 1,
}
CASES: list[tuple[PendingDelivery, str, dict[str, Any], str]] = [
    (
        told("completed", "Hi."),
        "dispatch_completed",
        {"state": "completed", "answer": "Hi."},
        "Hi.",
    ),
    (
        told("completed", " "),
        "dispatch_completed",
        {"state": "completed", "answer": " "},
        "archie completed event e1 without an answer.",
    ),
    (
        told("dead", stage="llm", why="no such model"),
        "dispatch_dead",
        {"state": "dead", "stage": "llm", "reason": "no such model"},
        "archie did not complete event e1: it is dead (llm: no such model).",
    ),
    (
        told("cancelled", stage="", why=""),
        "dispatch_cancelled",
        {"state": "cancelled", "stage": None, "reason": None},
        "archie did not complete event e1: it is cancelled.",
    ),
]


@pytest.mark.parametrize(("outcome", "kind", "data", "words"), CASES)
def test_an_outcome_in_fields_and_in_words(
    outcome: PendingDelivery, kind: str, data: dict[str, Any], words: str
) -> None:
    said = message(outcome)
    assert said == {
        "type": kind,
        "timestamp": "2023-11-14T22:13:20.000Z",
        "data": {**COMMON, **data},
    }
    assert as_text(outcome) == words
    event = cloud_event(outcome)
    assert (event["id"], event["type"], event["subject"]) == ("d1.1.upstream", kind, "e1")
    assert (event["specversion"], event["data"]) == ("1.0", said["data"])


def test_the_end_of_a_chain() -> None:
    ended = told("dead", chain="release", why="stage 2 (gem) failed")
    data = message(ended)["data"]
    assert message(ended)["type"] == "chain_ended"
    assert (data["chain"], data["chain_id"], data["state"]) == ("release", "c1", "dead")
    assert "answer" not in data
    assert [(one["agent"], one.get("answer")) for one in data["stages"]] == [
        ("a", "y"),
        ("gem", None),
    ]
    sentence = "Chain release did not complete event e1: it is dead (stage 2 (gem) failed)."
    assert as_text(ended) == sentence
    assert as_text(told("completed", chain="release", why="through")) == "y"


def test_a_cut_answer_says_so() -> None:
    pending = told("completed", "Half an ans")
    pending = replace(pending, record={**RECORD, "cut": "length"})
    assert message(pending)["data"]["cut"] == "length"
