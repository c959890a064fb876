"""An agent leaves the configuration, or gets another name: its work is told and never stranded."""

import pytest

from fleet.config.settings import Settings
from fleet.ledger import operations, parents, removed
from fleet.ledger.maintenance import REMOVED_MS
from fleet.ops.agents import rows
from fleet.ops.alerts.reading import conditions
from fleet.store import Store, keys
from tests.fixtures.ledger import FOR_GOOD, Books, settings_for

RETRY = {"attempts": 1, "backoff_s": 0, "min_age_s": 0}
NOW: Settings = settings_for("new", "other", retry=RETRY)


@pytest.fixture
def before(store: Store) -> Books:
    """The fleet as it was."""
    return Books(store, settings_for("old", "other", retry=RETRY))


@pytest.fixture
def now(store: Store) -> Books:
    """The same fleet with `new` in place of `old`."""
    return Books(store, NOW)


def in_mid_turn(before: Books, **fields: str) -> str:
    """The id of a dispatch of `old` whose worker has died."""
    (dispatch_id,) = before.accept("old", **fields)
    before.claimed(before.held("old"))
    before.store.client.delete(keys.lease("old"))
    return dispatch_id


def long_gone(now: Books) -> None:
    """As if the last worker of `old` were gone for as long as beat waits for another."""
    now.sweep()
    now.store.client.hincrby(keys.agent("old"), "left_ms", -REMOVED_MS - 1)


def test_it_is_told_until_it_is_done(before: Books, now: Books) -> None:
    before.accept("old")
    before.accept("old")
    before.accept("other")
    assert removed.work(now.store, before.settings.agents) == {}
    assert removed.work(now.store, NOW.agents) == {"old": {"queued": 2}}
    (line,) = removed.lines(now.store, NOW.agents)
    assert "2 queued" in line
    assert "fleet queue move old NEW" in line
    found = {(one.name, one.agent) for one in conditions(now.store, NOW)}
    assert ("agent_removed", "old") in found
    names = operations.agents_with_work(now.store, NOW, None)
    assert [(row["agent"], row["status"]) for row in rows(now.store, NOW, names)] == [
        ("new", "offline"),
        ("other", "offline"),
        ("old", "removed"),
    ]
    operations.drain(now.ledger, NOW, "old", "no longer")
    assert removed.work(now.store, NOW.agents) == {}
    assert operations.agents_with_work(now.store, NOW, "old") == ["old"]
    with pytest.raises(operations.Unknown):
        operations.agents_with_work(now.store, NOW, "nobody")


def test_one_that_a_worker_still_serves_is_not_removed(before: Books, now: Books) -> None:
    lease = before.held("old")
    (dispatch_id,) = before.accept("old")
    before.claimed(lease)
    now.sweep()
    assert removed.work(now.store, NOW.agents) == {}
    assert now.state(dispatch_id) == "active"


def test_what_waits_goes_to_another_in_its_old_place(before: Books, now: Books) -> None:
    ids = [before.accept("old", id=str(n), session="s")[0] for n in range(3)]
    (later,) = now.accept("new")
    moved = operations.reassign(now.ledger, NOW, "old", "new")
    assert moved == {"queued": 3}
    assert not operations.reassign(now.ledger, NOW, "old", "new")
    lease = now.held("new")
    for expected in (*ids, later):
        claim = now.claimed(lease)
        assert (claim.dispatch_id, claim.agent) == (expected, "new")
        now.complete(claim)
    assert removed.work(now.store, NOW.agents) == {}
    event = parents.get(now.store, "1")
    assert event is not None
    assert [(one["agent"], one["state"]) for one in event["members"]] == [("new", "completed")]


def test_a_turn_without_its_worker_ends_and_its_session_goes_on(before: Books, now: Books) -> None:
    stuck = in_mid_turn(before, session="s")
    (behind,) = now.accept("other", session="s")
    now.sweep()
    assert now.state(stuck) == "active"  # its worker may be replaced
    lease = now.held("other")
    assert now.claim(lease) is None
    long_gone(now)
    now.sweep()
    assert now.ends(stuck) == ["dispatch_dead"]
    (end,) = now.bus("dispatch_dead")
    assert (end.fields["stage"], "removed" in end.fields["reason"]) == ("worker_lost", True)
    assert now.claimed(lease).dispatch_id == behind


def test_its_dead_letters_move_and_run_again(before: Books, now: Books) -> None:
    lease = before.held("old")
    (dispatch_id,) = before.accept("old")
    before.fail(before.claimed(lease), FOR_GOOD)
    before.store.client.delete(keys.lease("old"))
    with pytest.raises(operations.NotPossible, match="fleet queue move old NEW"):
        operations.replay(now.ledger, NOW, dispatch_id)
    assert operations.reassign(now.ledger, NOW, "old", "new") == {"dead": 1}
    assert operations.replay(now.ledger, NOW, dispatch_id) == "queued"
    assert now.claimed(now.held("new")).dispatch_id == dispatch_id


def test_after_an_outage_its_worker_has_time_to_come_back(before: Books, now: Books) -> None:
    stuck = in_mid_turn(before)
    long_gone(now)
    now.silence()
    now.sweep()
    assert now.state(stuck) == "active"


def test_only_what_waits_leaves_an_agent_that_works(now: Books) -> None:
    lease = now.held("other")
    (running,) = now.accept("other")
    claim = now.claimed(lease)
    (waiting,) = now.accept("other")
    assert operations.reassign(now.ledger, NOW, "other", "new") == {"queued": 1}
    now.complete(claim)
    assert now.claim(lease) is None
    assert [now.record(one)["agent"] for one in (running, waiting)] == ["other", "new"]
