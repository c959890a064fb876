"""A claim that cannot be read says so: no worker is blamed, and the agent goes on."""

import pytest

from fleet.ledger import State, operations
from fleet.ledger.operations import NotPossible
from fleet.store import Store, keys
from tests.fixtures.chains import MakeBooks, Run
from tests.fixtures.ledger import Books, settings_for


@pytest.mark.parametrize("stages", [("archie",), ("archie", "gem"), ("@reviewers",)])
def test_a_chain_that_comes_again_when_its_event_is_forgotten_has_its_text(
    books: MakeBooks, stages: tuple[str, ...]
) -> None:
    """The records of a forgotten event wait for a sweep, long after the event's own time."""
    made = books(*stages)
    first = Run(made, id="1")
    member = "archie" if "archie" in stages else "gem"
    operations.cancel(made.ledger, made.settings, first.dispatch(1, member), "enough")
    digest = keys.event_digest(first.key)
    made.store.client.delete(keys.event(digest), keys.payload(digest))
    for lease in first.leases.values():
        lease.release()
    again = Run(made, id="1")
    assert again.claim(member).text == "ship it"


@pytest.fixture
def single(store: Store) -> Books:
    return Books(store, settings_for("a"))


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (None, "its event, or one that joined it, is not in the store any more"),
        ("{", "what the store keeps of it cannot be read (JSONDecodeError)"),
        ('{"id": "1"}', "what the store keeps of it cannot be read (KeyError)"),
    ],
)
def test_it_is_set_aside_and_the_next_one_runs(
    single: Books, stored: str | None, reason: str
) -> None:
    lost, good = (single.accept()[0] for _ in range(2))
    payload = f"fleet:payload:{single.record(lost)['event']}"
    if stored is None:
        single.store.client.delete(payload)
    else:
        single.store.client.set(payload, stored)
    lease = single.held()
    assert single.claim(lease) is None
    record = single.record(lost)
    assert (record["state"], record["losses"], record["stage"]) == (State.DEAD, "0", "queue")
    assert record["error"] == reason
    (told,) = single.bus("dispatch_dead")
    assert (told.fields["stage"], told.fields["reason"]) == ("queue", reason)
    assert single.claimed(lease).dispatch_id == good
    if stored is None:
        with pytest.raises(NotPossible, match="no longer kept"):
            operations.replay(single.ledger, single.settings, lost)


def test_what_joined_a_turn_is_never_left_out_of_it(store: Store) -> None:
    coalesced = Books(store, settings_for("a", on_busy="coalesce"))
    ids = [coalesced.accept("a", session="s")[0] for _ in range(2)]
    store.client.delete(f"fleet:payload:{coalesced.record(ids[1])['event']}")
    for dispatch_id in ids[:1]:
        store.client.hset(keys.dispatch(dispatch_id), "quiet_ms", 0)
        store.client.zadd("fleet:quiet", {dispatch_id: 0})
    coalesced.reclaim()
    assert coalesced.claim(coalesced.held()) is None
    assert [coalesced.state(one) for one in ids] == ["dead", "dead"]
