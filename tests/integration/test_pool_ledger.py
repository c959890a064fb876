"""The ledger of a pool: turns of many agents, each under a lease of its own."""

from collections import Counter

import pytest

from fleet.config.settings import parse
from fleet.errors import Fenced
from fleet.ledger import Ending, Failure, FailureStage, operations
from fleet.ledger.pools import PoolRuns
from fleet.store import Store
from fleet.store.lease_calls import PoolClaimCall
from fleet.worker.pool_leases import PoolLeases
from fleet.worker.state import SharedLeaseState
from tests.fixtures.ledger import OUTAGE
from tests.fixtures.pool import AGENT, PoolBooks, pool_settings

GONE = "elsewhere/1/1"


@pytest.fixture
def books(store: Store) -> PoolBooks:
    return PoolBooks(store, pool_settings({"a": {}, "b": {}}))


def test_the_agents_of_a_pool_take_turns(books: PoolBooks) -> None:
    for _ in range(5):
        books.accept("a")
    books.accept("b")
    ran = []
    for _ in range(6):
        claim = books.taken()
        ran.append(claim.agent)
        books.done(claim)
    assert sorted(ran[:2]) == ["a", "b"]
    assert ran[2:] == ["a"] * 4
    assert books.take() is None


def test_an_agent_with_more_weight_has_more_turns(store: Store) -> None:
    books = PoolBooks(store, pool_settings({"a": {"weight": 3}, "b": {}}))
    for _ in range(40):
        books.accept(["a", "b"])
    ran = Counter[str]()
    for _ in range(40):
        claim = books.taken()
        ran[claim.agent] += 1
        books.done(claim)
    assert ran["a"] == pytest.approx(30, abs=1)


def test_one_that_was_idle_has_no_credit_for_it(books: PoolBooks) -> None:
    for _ in range(20):
        books.accept("a")
    for _ in range(10):
        books.done(books.taken())
    for _ in range(10):
        books.accept("b")
    ran = []
    for _ in range(10):
        claim = books.taken()
        ran.append(claim.agent)
        books.done(claim)
    assert ran.count("b") == 5


def test_an_agent_has_one_turn_at_a_time(books: PoolBooks) -> None:
    for _ in range(3):
        books.accept("a")
    claim = books.taken()
    assert books.take() is None
    books.done(claim)
    assert books.taken().agent == "a"


def test_a_parallel_agent_has_one_turn_a_session(store: Store) -> None:
    books = PoolBooks(store, pool_settings({"a": {"parallel": 3}}, {"processes": 8}))
    sent = [books.accept("a", session=s)[0] for s in ("s", "s", "t", None, None)]
    claims = [books.taken() for _ in range(3)]
    assert [claim.dispatch_id for claim in claims] == [sent[0], sent[2], sent[3]]
    assert books.take() is None
    books.done(claims[1])
    assert books.taken().dispatch_id == sent[4]
    books.done(claims[0])
    assert books.taken().dispatch_id == sent[1]


def test_no_agent_has_more_than_its_share(store: Store) -> None:
    pool = {"processes": 4, "max_share": 0.5}
    books = PoolBooks(store, pool_settings({"a": {"parallel": 10}, "b": {}}, pool))
    for _ in range(5):
        books.accept("a")
    claims = [books.taken(), books.taken()]
    assert books.take() is None
    books.done(claims[0])
    assert books.taken().agent == "a"


def test_a_session_is_in_order_over_the_agents_of_a_pool(books: PoolBooks) -> None:
    sent = [books.accept(agent, session="s")[0] for agent in ("a", "b", "a")]
    ran = []
    for _ in sent:
        claim = books.taken()
        assert books.take() is None
        ran.append(claim.dispatch_id)
        books.done(claim)
    assert ran == sent


def test_a_lost_turn_is_the_agents_next_one(books: PoolBooks) -> None:
    first, _ = books.accept("a")[0], books.accept("a", priority=9)
    claim = books.taken()
    while claim.dispatch_id != first:
        books.done(claim)
        claim = books.taken()
    books.accept("a", priority=9)
    books.lose(claim)
    again = books.taken()
    assert again.dispatch_id == first
    assert again.attempt == 2
    assert again.fence > claim.fence
    assert books.losses(first) == 1


def test_a_dispatch_that_keeps_killing_its_process_is_dead_lettered(books: PoolBooks) -> None:
    (one,) = books.accept("a")
    for _ in range(3):
        books.lose(books.taken())
    assert books.state(one) == "dead"
    assert books.take() is None


def test_a_turn_whose_lease_ran_out_can_write_nothing(books: PoolBooks) -> None:
    (one,) = books.accept("a")
    late = books.taken()
    other = books.worker(GONE)
    books.pass_time(one)
    other.renew(0)
    assert books.losses(one) == 1
    again = books.taken(other)
    for write in (
        lambda: books.ledger.step(late, "k", "{}"),
        lambda: books.ledger.commit(late, Ending(answer="late")),
    ):
        with pytest.raises(Fenced):
            write()
    assert [turn.dispatch_id for turn in books.first.renew(0)] == [one]
    assert books.done(again, other) == "completed"


def test_renewed_turns_are_not_lost(books: PoolBooks) -> None:
    (one,) = books.accept("a")
    books.taken()
    books.pass_time(one)
    # Renewed before anybody looked: it goes on, as after an outage.
    assert books.first.renew(0) == []
    assert books.losses(one) == 0


@pytest.mark.parametrize("ended", ["completed", "retrying"])
def test_a_turn_that_has_just_ended_is_not_lost(ended: str, books: PoolBooks) -> None:
    """Its child has not said so yet."""
    books.accept("a")
    claim = books.taken()
    state = books.complete(claim) if ended == "completed" else books.fail(claim)
    assert state == ended
    assert books.first.renew(0) == []


def test_a_claim_whose_reply_was_lost_is_given_again(books: PoolBooks) -> None:
    books.accept(["a", "b"])
    call = PoolClaimCall(
        pool="p",
        worker=books.first.worker,
        holder="h:1",
        lease="once",
        ttl_ms=5000,
        max_share=1.0,
        chained=0,
        keep_ended_ms=1000,
        history_max=10,
        ageing_ms=1000,
        losses_max=3,
        keep_dead_ms=1000,
    )
    books.store.client.hset("fleet:agent:a", "unclean", 1)
    books.store.client.hset("fleet:agent:b", "unclean", 1)
    first, again = books.store.run(call), books.store.run(call)
    assert first == again
    assert first[2] == "1", "what an earlier turn left is killed after a lost reply, too"
    assert books.record(first[3])["attempt"] == "1"


def test_a_paused_agent_claims_nothing_and_goes_on_when_it_is_resumed(books: PoolBooks) -> None:
    operations.pause(books.ledger, "a")
    books.accept("a")
    assert books.take() is None
    operations.resume(books.ledger, "a")
    assert books.pool_wakeups() >= 1
    assert books.taken().agent == "a"


def test_a_held_agent_rests_until_its_time(books: PoolBooks) -> None:
    (one,) = books.accept("a")
    wait = Failure(
        stage=FailureStage.LLM, reason="later", retryable=True, retry_after_s=60.0, defer=True
    )
    claim = books.taken()
    books.ledger.commit(claim, Ending(failure=wait))
    books.over(claim)
    assert books.state(one) == "queued"
    assert books.take() is None
    books.store.client.hset("fleet:agent:a", "hold_ms", "1")
    books.store.client.zadd("fleet:rests", {"a": 1})
    books.first.renew(0)
    assert books.taken().dispatch_id == one


def test_a_failed_turn_is_tried_again_when_it_is_due(books: PoolBooks) -> None:
    (one,) = books.accept("a")
    claim = books.taken()
    books.fail(claim, OUTAGE)
    books.over(claim)
    assert books.state(one) == "retrying"
    books.reclaim()
    assert books.taken().attempt == 2


def test_a_worker_of_its_own_waits_for_the_pools_turn_and_takes_the_agent(books: PoolBooks) -> None:
    books.accept("a")
    books.accept("a")
    claim, lease = books.taken(), books.lease("a")
    assert not lease.acquire()
    books.done(claim)
    assert lease.acquire()
    assert books.take() is None
    books.complete(books.claimed(lease))
    books.accept("a")
    assert books.wakeups("a") >= 1
    assert books.take() is None


def test_a_pool_takes_over_what_a_dead_worker_of_its_own_left(books: PoolBooks) -> None:
    lease = books.held("a")
    (one,) = books.accept("a")
    late = books.claimed(lease)
    books.first.record_agents()
    assert books.take() is None
    books.store.client.delete("fleet:lease:a")
    books.store.client.zadd("fleet:rests", {"a": 1})
    books.first.renew(0)
    again = books.taken()
    assert (again.dispatch_id, again.attempt) == (one, 2)
    assert books.losses(one) == 1
    with pytest.raises(Fenced):
        books.complete(late)


def test_a_cancelled_turn_keeps_agent_and_session_until_its_process_is_dead(
    books: PoolBooks,
) -> None:
    one, two = (books.accept("a", session="s")[0] for _ in range(2))
    claim = books.taken()
    operations.cancel(books.ledger, books.settings, one, "enough", now=True)
    assert books.state(one) == "cancelled"
    assert books.orders(books.first) == [f"stop {one}"]
    assert books.take() is None
    books.sweep()
    assert books.take() is None
    books.lose(claim)
    assert books.taken().dispatch_id == two
    assert books.losses(two) == 0


def test_a_stopping_worker_hands_its_turns_back(books: PoolBooks) -> None:
    (one,) = books.accept("a")
    claim = books.taken()
    for turn in books.first.shared.turns().values():
        books.first.end(turn.dispatch_id, turn.lease, "stopped")
    books.over(claim)
    books.first.leave()
    other = books.worker(GONE)
    assert books.taken(other).dispatch_id == one
    assert books.losses(one) == 0


def test_all_turns_of_a_dead_worker_are_lost_with_it(books: PoolBooks) -> None:
    (one,), (two,) = books.accept("a"), books.accept("b")
    other = books.worker(GONE)
    books.taken(other), books.taken(other)
    books.first._end_worker(GONE)
    assert (books.losses(one), books.losses(two)) == (1, 1)
    assert {books.taken().dispatch_id, books.taken().dispatch_id} == {one, two}


def test_there_is_a_wakeup_for_each_agent_in_line(books: PoolBooks) -> None:
    for agent in ("a", "a", "b"):
        books.accept(agent)
    assert books.pool_wakeups() == 2
    books.done(books.taken())
    books.take(chained=True)
    assert books.pool_wakeups() == 2  # of three, for `a` came into the line twice
    assert books.wakeups("a") == 0


def test_a_lost_wakeup_is_pushed_again_for_an_idle_process(books: PoolBooks) -> None:
    books.accept(["a", "b"])
    books.store.client.delete("pool.p")
    books.first.renew(1)
    assert books.pool_wakeups() == 1
    books.first.renew(4)
    assert books.pool_wakeups() == 2


def test_what_came_before_the_pool_was_known_is_done(store: Store) -> None:
    settings = pool_settings({"a": {}})
    books = PoolBooks.__new__(PoolBooks)
    super(PoolBooks, books).__init__(store, settings)
    (one,) = books.accept("a")
    assert books.wakeups("a") == 1
    books.first = books.worker()
    assert books.wakeups("a") == 0
    assert books.taken().dispatch_id == one


def test_an_agent_that_moves_to_another_pool_is_in_that_ones_line(books: PoolBooks) -> None:
    books.accept("a")
    settings = parse({"pools": {"q": {}}, "agents": {"a": {**AGENT, "pool": "q"}}})
    other = PoolLeases(store=books.store, settings=settings, pool="q", shared=SharedLeaseState(4))
    other.renew(0)
    other.record_agents()
    assert books.take() is None
    books.ledger.settings = settings
    found = PoolRuns(books.ledger, "q", other.worker, other.holder).claim()
    assert found is not None
    assert found.claim.agent == "a"


def test_a_turn_after_a_loss_knows_that_programs_may_be_left(books: PoolBooks) -> None:
    books.accept("a")
    books.lose(books.taken())
    found = books.runs().claim()
    assert found is not None
    assert found.unclean
    books.complete(found.claim)
    books.accept("a")
    found = books.runs().claim()
    assert found is not None
    assert not found.unclean
