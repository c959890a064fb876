"""Failures of attempts: the last ones of each dispatch, as long as the dispatch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fleet.formats.redaction import HIDDEN
from fleet.ledger import FailureStage, operations, views
from fleet.store import Store, keys
from fleet.worker.lease import Lease
from tests.fixtures.ledger import FOR_GOOD, OUTAGE, Books, settings_for

WORDS = replace(OUTAGE, kind="ValueError", place="a.py:1", message="hush", traceback="at: hush")


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a", retry={"attempts": 9, "backoff_s": 0, "min_age_s": 0}))


def failures(books: Books, dispatch_id: str, *, content: bool = True) -> list[dict[str, Any]]:
    record = views.get(books.store, dispatch_id, content=content)
    assert record is not None
    found: list[dict[str, Any]] = record.get("failures", [])
    return found


def fail(
    books: Books, reasons: Sequence[str], *, last: str = "", lease: Lease | None = None
) -> str:
    """A dispatch whose attempts failed for these reasons; `last` for good."""
    lease = lease or books.held()
    (dispatch_id,) = books.accept()
    for reason in reasons:
        books.fail(books.claimed(lease), replace(WORDS, reason=reason))
        books.reclaim()
    if last:
        books.fail(books.claimed(lease), replace(FOR_GOOD, reason=last))
    return dispatch_id


def test_every_attempt_has_its_own_and_a_replay_keeps_them(books: Books) -> None:
    lease = books.held()
    dispatch_id = fail(books, ["one", "two"], last="three", lease=lease)
    assert operations.replay(books.ledger, books.settings, dispatch_id) == "queued"
    found = failures(books, dispatch_id)
    assert [(row["attempt"], row["reason"]) for row in found] == [
        *((1, "one"), (2, "two"), (3, "three"))
    ]
    assert found[0]["message"] == "hush"
    assert found[0]["at"] <= found[1]["at"] <= found[2]["at"]
    books.complete(books.claimed(lease))
    assert len(failures(books, dispatch_id)) == 3, "also of one that succeeded after all"


def test_the_last_five_are_kept(books: Books) -> None:
    dispatch_id = fail(books, list("abcdefg"))
    assert [row["reason"] for row in failures(books, dispatch_id)] == list("cdefg")


def test_what_was_said_is_shown_to_those_who_may_see_content(books: Books) -> None:
    dispatch_id = fail(books, ["one"])
    (row,) = failures(books, dispatch_id, content=False)
    assert (row["kind"], row["place"], row["stage"]) == ("ValueError", "a.py:1", "llm")
    assert (row["message"], row["traceback"]) == (HIDDEN, HIDDEN)
    assert "hush" not in str([entry.fields for entry in books.bus()])
    assert "hush" not in str(books.record(dispatch_id))


def test_a_lost_worker_is_one_of_them(books: Books) -> None:
    lease = books.held()
    (dispatch_id,) = books.accept()
    books.claimed(lease)
    books.fail(books.claimed(lease))
    found = failures(books, dispatch_id)
    assert [(row["attempt"], row["stage"]) for row in found] == [
        (1, FailureStage.WORKER_LOST),
        (2, FailureStage.LLM),
    ]
    assert found[0]["reason"] == "the worker died in mid-turn"


def test_one_that_waits_for_its_models_has_not_failed(books: Books) -> None:
    lease = books.held()
    (dispatch_id,) = books.accept()
    books.fail(books.claimed(lease), replace(OUTAGE, defer=True, retry_after_s=60))
    assert failures(books, dispatch_id) == []


def test_they_are_gone_with_the_dispatch(books: Books) -> None:
    dispatch_id = fail(books, ["one"], last="two")
    key = keys.failures(dispatch_id)
    kept_ms = books.store.client.pttl(key)
    assert 0 < int(str(kept_ms)) <= books.settings.retention.dead_s * 1000
    assert operations.purge(books.ledger, books.settings) == 1
    assert books.store.client.exists(key) == 0
