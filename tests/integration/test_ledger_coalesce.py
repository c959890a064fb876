"""`on_busy = "coalesce"`: messages until it is quiet are one turn; each has its own outcome."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.config.settings import parse
from fleet.errors import Refused
from fleet.ledger import Claim, operations, views
from fleet.store import Store, keys, open_store
from tests.fixtures.ledger import FOR_GOOD, OUTAGE, Books
from tests.fixtures.machine import ADVANCE, Flaky
from tests.fixtures.valkey import Valkey

WINDOW_S, MOST_S = 2.0, 5.0


class Quiet(Books):
    """Agent `b` enqueues, the others coalesce; the store's clock moves when told so."""

    def __init__(self, store: Store) -> None:
        common = {
            "runner": "python",
            "python": "nobody:nothing",
            "max_pending": 150,
            "retry": {"attempts": 2, "backoff_s": 0, "min_age_s": 0},
        }
        tables = {
            "agents": {
                "a": {**common, "on_busy": "coalesce"},
                "b": common,
                "c": {**common, "on_busy": "coalesce"},
                "d": {
                    **common,
                    "on_busy": "coalesce",
                    "max_pending": 2,
                    "overflow": "drop_oldest",
                },
            },
            "sessions": {"coalesce_window_s": WINDOW_S, "coalesce_max_s": MOST_S},
        }
        super().__init__(store, parse(tables))
        self.leases = {agent: self.lease(agent, ttl_s=1e7) for agent in "abcd"}
        assert all(lease.acquire() for lease in self.leases.values())

    def say(self, text: str, agent: str = "a", session: str | None = "s", **fields: Any) -> str:
        (dispatch_id,) = self.accept(agent, text, session=session, **fields)
        return dispatch_id

    def wait(self, seconds: float) -> None:
        """Time passes, and beat ticks."""
        self.store.client.eval(ADVANCE, 0, int(seconds * 1000))
        self.reclaim()

    def next(self, agent: str = "a") -> Claim | None:
        return self.claim(self.leases[agent])

    def must(self, agent: str = "a") -> Claim:
        return self.claimed(self.leases[agent])

    def close(self) -> None:
        for lease in self.leases.values():
            lease.forget_beacon()
        self.store.close()

    def answer(self, dispatch_id: str) -> Any:
        return self.store.client.get(keys.outcome(dispatch_id))


@pytest.fixture
def books(valkey: Valkey, store: Store) -> Iterator[Quiet]:
    flaky = Flaky(open_store(valkey.url).client, {})
    quiet = Quiet(flaky)
    yield quiet
    flaky.client.delete("test:ahead_ms")
    quiet.close()


def test_messages_until_it_is_quiet_are_one_turn(books: Quiet) -> None:
    ids = []
    for text in ("one", "two", "three"):
        ids.append(books.say(text))
        books.wait(1)
    assert books.next() is None
    books.wait(1)
    claim = books.must()
    assert (claim.dispatch_id, claim.text) == (ids[0], "one\n\ntwo\n\nthree")
    assert [event.text for event in claim.joined] == ["two", "three"]
    books.complete(claim, "all three")
    assert books.next() is None
    for dispatch_id in ids:
        assert books.state(dispatch_id) == "completed"
        assert books.answer(dispatch_id) == "all three"
        assert books.ends(dispatch_id) == ["dispatch_completed"]
    assert len(books.bus("dispatch_started")) == 1


def test_one_message_waits_for_quiet_and_no_longer(books: Quiet) -> None:
    dispatch_id = books.say("one")
    books.wait(WINDOW_S - 0.1)
    record = views.get(books.store, dispatch_id)
    assert record is not None
    assert record["waiting_for"] == "its session to be quiet"
    assert books.next() is None
    books.wait(0.1)
    assert books.wakeups() == 1
    assert books.must().text == "one"


def test_a_stream_of_messages_is_cut_at_the_longest_wait(books: Quiet) -> None:
    for number in range(7):
        books.say(str(number))
        books.wait(1)
    assert books.must().text == "0\n\n1\n\n2\n\n3\n\n4"


def test_what_comes_after_the_window_is_the_next_turn(books: Quiet) -> None:
    books.say("one")
    books.wait(WINDOW_S)
    second = books.say("two")
    claim = books.must()
    assert claim.text == "one"
    books.say("three")
    books.wait(WINDOW_S)
    books.complete(claim)
    claim = books.must()
    assert (claim.dispatch_id, claim.text) == (second, "two\n\nthree")


def test_sessions_agents_and_events_without_a_session_do_not_mix(books: Quiet) -> None:
    ids = [
        books.say("one"),
        books.say("two", session="t"),
        books.say("three", session=None),
        books.say("four", agent="c", session="u"),
    ]
    assert books.must().dispatch_id == ids[2]
    books.wait(WINDOW_S)
    assert [books.record(i).get("joined_to") for i in ids] == [None] * 4


def test_nothing_of_the_session_is_overtaken(books: Quiet) -> None:
    """A message for another agent in between ends the row."""
    first = books.say("one")
    books.say("for b", agent="b")
    third = books.say("three")
    assert "joined_to" not in books.record(third)
    books.wait(WINDOW_S)
    assert books.next("b") is None
    claim = books.must()
    assert claim.dispatch_id == first
    books.complete(claim)
    assert books.next() is None
    books.complete(books.must("b"))
    assert books.must().dispatch_id == third


@pytest.mark.parametrize("end", ["dead", "expired", "cancelled"])
def test_whatever_ends_the_turn_ends_each_of_them(end: str, books: Quiet) -> None:
    ids = [books.say("one"), books.say("two")]
    books.wait(WINDOW_S)
    if end == "expired":
        books.wait(2 * 86400)
    else:
        claim = books.must()
        if end == "dead":
            books.fail(claim, FOR_GOOD)
        else:
            operations.cancel(books.ledger, books.settings, ids[0], "enough", now=True)
    for dispatch_id in ids:
        assert books.state(dispatch_id) == end
        assert books.ends(dispatch_id) == [f"dispatch_{end}"]
    if end == "dead":
        assert books.record(ids[1])["error"] == FOR_GOOD.reason
        second = views.get(books.store, ids[1]) or {}
        assert [row["reason"] for row in second["failures"]] == [FOR_GOOD.reason]
    assert not books.store.client.exists(keys.QUIET)


def test_a_deadline_that_passes_while_the_turn_runs_ends_nothing(books: Quiet) -> None:
    ids = [books.say("one"), books.say("two")]
    books.wait(WINDOW_S)
    claim = books.must()
    books.wait(2 * 86400)
    assert [books.state(i) for i in ids] == ["active", "queued"]
    books.complete(claim)
    assert [books.state(i) for i in ids] == ["completed"] * 2


def test_whatever_happens_to_the_first_the_others_end(books: Quiet) -> None:
    """As when a store was restored without it."""
    ids = [books.say("one"), books.say("two")]
    books.store.client.delete(keys.dispatch(ids[0]))
    books.wait(2 * 86400)
    assert books.state(ids[1]) == "expired"
    assert not books.store.client.exists(keys.dispatch(ids[0]))


def test_a_retry_and_a_lost_worker_keep_the_turn_together(books: Quiet) -> None:
    ids = [books.say("one"), books.say("two")]
    books.wait(WINDOW_S)
    books.fail(books.must(), OUTAGE)
    assert [books.state(i) for i in ids] == ["retrying", "queued"]
    late = books.say("late")
    books.wait(1)
    assert books.must().text == "one\n\ntwo"
    again = books.must()  # the worker died, and another takes it up
    assert (again.attempt, again.text) == (3, "one\n\ntwo")
    assert "joined_to" not in books.record(late)
    books.complete(again)
    assert [books.state(i) for i in ids] == ["completed"] * 2


def test_a_dead_turn_is_replayed_message_by_message(books: Quiet) -> None:
    ids = [books.say("one"), books.say("two")]
    books.wait(WINDOW_S)
    books.fail(books.must(), FOR_GOOD)
    for dispatch_id in reversed(ids):
        operations.replay(books.ledger, books.settings, dispatch_id)
    for dispatch_id, text in zip(ids, ["one", "two"], strict=True):
        claim = books.must()
        assert (claim.dispatch_id, claim.text) == (dispatch_id, text)
        books.complete(claim)
    assert books.next() is None


def test_one_that_is_cancelled_leaves_the_turn(books: Quiet) -> None:
    ids = [books.say(text) for text in ("one", "two", "three")]
    record = views.get(books.store, ids[1])
    assert record is not None
    assert record["waiting_for"] == f"the turn of {ids[0]}, which it is part of"
    operations.cancel(books.ledger, books.settings, ids[1], "enough")
    books.wait(WINDOW_S)
    assert books.must().text == "one\n\nthree"


def test_the_first_one_may_be_cancelled_and_the_others_go_on(books: Quiet) -> None:
    ids = [books.say(text) for text in ("one", "two", "three")]
    operations.cancel(books.ledger, books.settings, ids[0], "enough")
    ids.append(books.say("four"))
    assert [books.state(i) for i in ids] == ["cancelled", *["queued"] * 3]
    assert books.next() is None
    books.wait(WINDOW_S)
    claim = books.must()
    assert (claim.dispatch_id, claim.text) == (ids[1], "two\n\nthree\n\nfour")
    books.complete(claim)
    assert [books.state(i) for i in ids[1:]] == ["completed"] * 3


def test_the_first_one_may_be_cancelled_when_it_only_waits_for_its_agent(books: Quiet) -> None:
    busy = books.say("busy", session="t")
    books.wait(WINDOW_S)
    running = books.must()
    ids = [books.say("one"), books.say("two")]
    books.wait(WINDOW_S)
    operations.cancel(books.ledger, books.settings, ids[0], "enough")
    assert running.dispatch_id == busy
    books.complete(running)
    assert books.must().text == "two"


def test_the_first_one_may_be_dropped_and_the_others_go_on(books: Quiet) -> None:
    ids = [books.say("one", agent="d"), books.say("two", agent="d")]
    books.wait(WINDOW_S)
    ids.append(books.say("three", agent="d", session=None))
    assert [books.state(i) for i in ids] == ["dropped", "queued", "queued"]
    for dispatch_id, text in zip(ids[1:], ["two", "three"], strict=True):
        claim = books.must("d")
        assert (claim.dispatch_id, claim.text) == (dispatch_id, text)
        books.complete(claim)


def test_the_most_urgent_of_them_says_how_urgent_the_turn_is(books: Quiet) -> None:
    books.say("background", session="t", priority=5)
    books.say("one", priority=0)
    books.say("hurry", priority=9)
    books.wait(WINDOW_S)
    assert books.must().text == "one\n\nhurry"


def test_a_repeated_event_is_in_the_turn_once(books: Quiet) -> None:
    books.store.loses_replies = True  # type: ignore[attr-defined]
    books.say("one")
    second = books.say("two", id="2")
    assert books.say("two", id="2") == second
    books.wait(WINDOW_S)
    assert books.must().text == "one\n\ntwo"


def test_a_turn_has_a_bound(books: Quiet) -> None:
    """By number; and by bytes, as one event has."""
    for number in range(101):
        books.say(str(number))
    books.say("x" * 700_000, session="large")
    books.say("y" * 700_000, session="large")
    books.wait(WINDOW_S)
    sizes = []
    for _ in range(4):
        claim = books.must()
        sizes.append(1 + len(claim.joined))
        books.complete(claim)
    assert sizes == [100, 1, 1, 1]


def test_they_count_as_waiting_until_the_turn_ends(books: Quiet) -> None:
    for number in range(150):
        books.say(str(number), session=str(number % 2))
    with pytest.raises(Refused, match="a has 150 events waiting"):
        books.say("too many")


def test_the_history_has_one_message_of_the_user(books: Quiet) -> None:
    books.say("one")
    books.say("two")
    books.wait(WINDOW_S)
    books.complete(books.must(), "both")
    books.say("three")
    books.wait(WINDOW_S)
    assert [one.text for one in books.must().history] == ["one\n\ntwo", "both"]


def test_nothing_is_left_behind(books: Quiet) -> None:
    for text in ("one", "two"):
        books.say(text)
    books.wait(WINDOW_S)
    books.complete(books.must())
    left = {str(key) for key in books.store.client.scan_iter("fleet:*")}
    assert not left & {keys.QUIET, "fleet:deadlines", "fleet:sessions"}
    assert not [key for key in left if key.startswith(("fleet:session:", "fleet:due:"))]


acts = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from("abc"), st.sampled_from("st")),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 2.0]), st.just("")),
        st.tuples(st.just("turn"), st.sampled_from("abc"), st.sampled_from(["ok", "fail", "dead"])),
        st.tuples(st.just("cancel"), st.integers(0, 3), st.just("")),
    ),
    max_size=30,
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(acts)
def test_each_message_is_in_one_turn_and_has_one_outcome(
    valkey: Valkey, script: list[tuple[str, Any, str]]
) -> None:
    store = Flaky(open_store(valkey.url).client, {})
    store.client.flushall()
    books = Quiet(store)
    texts: dict[str, tuple[str, int]] = {}  # dispatch -> session, place in it
    told: list[tuple[str, int]] = []

    def turn(agent: str, how: str) -> bool:
        claim = books.next(agent)
        if claim is None:
            return False
        if how == "fail" and books.fail(claim, OUTAGE) == "retrying":
            return True
        session = str(claim.event.session)
        told.extend((session, int(text)) for text in claim.text.split("\n\n"))
        if how == "dead":
            books.fail(claim, FOR_GOOD)
        elif how == "ok":
            books.complete(claim)
        return True

    for what, one, other in script:
        if what == "say":
            number = len(texts)
            texts[books.say(str(number), agent=one, session=other)] = (other, number)
        elif what == "wait":
            books.wait(one)
        elif what == "turn":
            turn(one, other)
        elif texts:
            dispatch_id = list(texts)[-1 - one % len(texts)]
            if books.state(dispatch_id) == "queued":
                operations.cancel(books.ledger, books.settings, dispatch_id, "enough")
    for _ in range(len(texts) + 1):
        books.wait(MOST_S)
        while sum(turn(agent, "ok") for agent in "abc"):
            pass
    states = {dispatch_id: books.state(dispatch_id) for dispatch_id in texts}
    assert set(states.values()) <= {"completed", "dead", "cancelled"}
    assert all(len(books.ends(dispatch_id)) == 1 for dispatch_id in texts)
    turned = [texts[i] for i, state in states.items() if state != "cancelled"]
    assert sorted(told) == sorted(turned)
    for session in "st":
        order = [number for where, number in told if where == session]
        assert order == sorted(order), "accepted in this order"
    books.close()
