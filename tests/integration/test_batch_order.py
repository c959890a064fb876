"""A batch's events get their order in the fleet, whatever comes between the calls of the batch."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.ledger import ImportedEvent
from fleet.store import Store, keys, open_store
from routing import Event, Plan, decide
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.valkey import Valkey

#: So large that the server reads a batch in many parts, and serves others in between.
TEXT = "x" * 20_000
EVENTS = 100


@pytest.fixture
def books(store: Store, valkey: Valkey) -> Iterator[Books]:
    """A ledger while somebody else looks at the clock all the time, as beats and workers do."""
    over = threading.Event()
    other = open_store(valkey.url)

    def look() -> None:
        while not over.is_set():
            other.clock.look()

    thread = threading.Thread(target=look)
    books = Books(store, settings_for("a", max_pending=10_000))
    books.accept()
    thread.start()
    yield books
    over.set()
    thread.join()
    other.close()


def batch_of(books: Books, name: str) -> list[tuple[Event, Plan]]:
    fields = {"to": "a", "text": TEXT, "session": "one"}
    now = "2026-01-01T00:00:00Z"
    events = [Event.parse(fields, new_id=f"{name}-{n}", now=now) for n in range(EVENTS)]
    return [(event, decide(event, books.settings.rules())) for event in events]


def order(books: Books, batch: list[tuple[Event, Plan]]) -> list[int]:
    ids = [keys.dispatch_id(event.key, "a") for event, _ in batch]
    return [int(books.record(one)["seq"]) for one in ids]


@pytest.mark.parametrize("way", ["accept", "import"])
@pytest.mark.parametrize("before", ["stale", "forgotten"])
def test_a_batch_keeps_its_order(books: Books, way: str, before: str) -> None:
    client: Any = books.store.client
    for attempt in range(3):
        batch = batch_of(books, f"{attempt}")
        if before == "stale":
            # As after a time in which nobody looked at the clock.
            client.hincrby(keys.CLOCK, "raw", -6000)
        else:
            client.script_flush()
        if way == "accept":
            books.ledger.accept_many(batch)
        else:
            books.ledger.import_spooled(
                [ImportedEvent(event=event, plan=plan, age_s=1.0) for event, plan in batch]
            )
        found = order(books, batch)
        assert found == sorted(found), attempt
