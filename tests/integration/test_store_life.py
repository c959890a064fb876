"""A store that went back is noticed, and the fleet stands still until its operator says go on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet.config.settings import Settings, parse
from fleet.errors import StoreLost
from fleet.ledger import store_life, views
from fleet.ops.alerts.reading import conditions
from fleet.store import Store
from tests.fixtures import deliveries
from tests.fixtures.ledger import Books
from tests.fixtures.valkey import Valkey

Machine = Callable[[str], Settings]


@pytest.fixture
def machine(tmp_path: Path, valkey: Valkey) -> Machine:
    """The settings of a machine with a data folder of its own."""

    def make(name: str) -> Settings:
        fleet = {"broker_url": valkey.url, "data_dir": str(tmp_path / name)}
        agent = {"runner": "python", "python": "nobody:nothing"}
        return parse({"fleet": fleet, "agents": {"a": agent}})

    return make


def backup(store: Store, valkey: Valkey, *, age_s: float = 0) -> Callable[[], None]:
    """Keep all that the store has, as if that were so old; call the answer to put it back."""
    seen = int(str(store.client.get("fleet:alive")))
    store.client.set("fleet:alive", int(seen - 1000 * age_s))
    with redis.Redis.from_url(valkey.url) as raw:
        kept: Any = [(key, max(int(raw.pttl(key)), 0), raw.dump(key)) for key in raw.scan_iter()]
    store.client.set("fleet:alive", seen)

    def restore() -> None:
        with redis.Redis.from_url(valkey.url) as raw:
            raw.flushall()
            for key, life_ms, value in kept:
                raw.restore(key, life_ms, value)

    return restore


def trouble(store: Store, settings: Settings) -> list[str]:
    """Return the alerts about the store."""
    return [one.reason for one in conditions(store, settings) if one.name == "store_lost"]


@pytest.mark.parametrize("how", ["emptied", "restored"])
def test_a_store_that_went_back_takes_and_starts_nothing(
    store: Store, valkey: Valkey, machine: Machine, how: str
) -> None:
    one = machine("one")
    books = Books(store, one)
    assert store_life.look(store, one) == ""
    books.accept("a")
    restore = backup(store, valkey, age_s=3600) if how == "restored" else store.client.flushall
    books.complete(books.claimed(books.held()))
    assert store_life.look(store, one) == ""
    assert trouble(store, one) == []
    restore()
    assert store_life.look(store, one)
    assert store_life.look(store, one)
    with pytest.raises(StoreLost, match="fleet recover"):
        books.accept("a")
    with pytest.raises(StoreLost):
        store_life.check_lost(store)
    lease = books.held()
    assert books.claim(lease) is None
    assert len(trouble(store, one)) == 1

    assert store_life.recover(store)
    assert store_life.recover(store) == ""
    assert store_life.look(store, one) == ""
    assert trouble(store, one) == []
    assert books.accept("a")
    assert books.claim(lease) is not None


def test_a_store_that_went_back_delivers_nothing(
    store: Store, valkey: Valkey, machine: Machine
) -> None:
    """Receivers are spared what they got since the backup; what is past its deadline waits, too."""
    books = deliveries.make(store)
    one = machine("one")
    store_life.look(store, one)
    dispatch_id = deliveries.announced(books)
    restore = backup(store, valkey, age_s=3600)
    call = deliveries.claim(books, dispatch_id)
    deliveries.report(books, dispatch_id, call, "ack")
    store_life.look(store, one)
    restore()
    store_life.look(store, one)
    assert not deliveries.claim(books, dispatch_id)
    deliveries.past_due(books, dispatch_id)
    assert deliveries.due(books) == [0]
    shown = views.get(store, dispatch_id, content=False)
    assert shown
    assert shown["state"] == "announcing"

    store_life.recover(store)
    assert deliveries.claim(books, dispatch_id)


def test_numbers_that_were_given_are_given_to_nobody_else(
    store: Store, valkey: Valkey, machine: Machine
) -> None:
    books = Books(store, machine("one"))
    store_life.look(store, books.settings)
    restore = backup(store, valkey, age_s=3600)
    for _ in range(5):
        books.held().release()
    (last,) = books.accept("a")
    order, fence, epoch = books.record(last)["seq"], books.held().fence, books.bus()[-1].epoch
    store_life.look(store, books.settings)
    restore()
    store_life.look(store, books.settings)
    store_life.recover(store)
    (next_one,) = books.accept("a")
    assert int(books.record(next_one)["seq"]) > int(order)
    assert books.held().fence > fence
    assert books.bus()[-1].epoch != epoch


def test_one_word_is_for_all_machines(store: Store, machine: Machine) -> None:
    machines = [machine("one"), machine("two")]
    books = Books(store, machines[0])
    books.accept("a")
    for settings in machines:
        store_life.look(store, settings)
    store.client.flushall()
    assert all(store_life.look(store, settings) for settings in machines)
    store_life.recover(store)
    assert not any(store_life.look(store, settings) for settings in machines)
    assert store_life.look(store, machine("new")) == ""


def test_a_replica_that_lacks_the_last_moments_goes_on(
    store: Store, valkey: Valkey, machine: Machine
) -> None:
    """The fleet survives the loss of a primary; what was lost is told."""
    books = Books(store, machine("one"))
    store_life.look(store, books.settings)
    restore = backup(store, valkey, age_s=5)
    (last,) = books.accept("a")
    order = books.record(last)["seq"]
    store_life.look(store, books.settings)
    restore()
    assert store_life.look(store, books.settings) == ""
    (alert,) = books.bus("alert")
    assert alert.fields["name"] == "writes_lost"
    (next_one,) = books.accept("a")
    assert int(books.record(next_one)["seq"]) > int(order)
