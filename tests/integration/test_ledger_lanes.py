"""Lanes: what is urgent passes what is not, and ageing lets nothing starve."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.config.settings import parse
from fleet.ledger import Claim
from fleet.store import Store, open_store
from tests.fixtures.ledger import Books
from tests.fixtures.machine import ADVANCE, Flaky
from tests.fixtures.valkey import Valkey

AGEING_S = 60


class Lanes(Books):
    """One agent; a turn takes as long as it is told to."""

    def __init__(self, store: Store) -> None:
        agent = {"runner": "python", "python": "nobody:nothing", "max_pending": 1000}
        tables = {"agents": {"a": agent}, "lanes": {"batch": 1}, "fleet": {"ageing_s": AGEING_S}}
        super().__init__(store, parse(tables))
        self.mine = self.lease(ttl_s=1e7)
        assert self.mine.acquire()

    def wait(self, seconds: float) -> None:
        self.store.client.eval(ADVANCE, 0, int(seconds * 1000))

    def send(self, text: str, lane: str = "default", **fields: str) -> None:
        self.accept("a", text, lane=lane, **fields)

    def turn(self, seconds: float = 1) -> str:
        """The text of the turn that ran; empty when nothing waits."""
        claim: Claim | None = self.claim(self.mine)
        if claim is None:
            return ""
        self.wait(seconds)
        self.complete(claim)
        return claim.text

    def close(self) -> None:
        self.mine.forget_beacon()
        self.store.client.delete("test:ahead_ms")
        self.store.close()


@pytest.fixture
def books(valkey: Valkey, store: Store) -> Iterator[Lanes]:
    opened = Lanes(Flaky(open_store(valkey.url).client, {}))
    yield opened
    opened.close()


def test_a_lane_is_a_name_for_a_priority(books: Lanes) -> None:
    for lane in ("background", "batch", "default", "human"):
        books.send(lane, lane)
    assert [books.turn() for _ in range(4)] == ["human", "default", "batch", "background"]


def test_in_a_lane_the_older_one_goes_first(books: Lanes) -> None:
    for number in range(5):
        books.send(str(number), "background")
    assert [books.turn() for _ in range(5)] == ["0", "1", "2", "3", "4"]


def test_a_person_waits_for_one_aged_turn_however_much_there_is(books: Lanes) -> None:
    """Fifty that are all older than the time of ageing, and each takes a minute."""
    for number in range(50):
        books.send(f"old {number}", "background")
    books.wait(10 * AGEING_S)
    for number in range(3):
        books.send(f"person {number}", "human")
    ran = [books.turn(seconds=AGEING_S / 2) for _ in range(6)]
    assert ran == ["old 0", "person 0", "old 1", "person 1", "old 2", "person 2"]


def test_without_waiting_for_long_nobody_passes_a_person(books: Lanes) -> None:
    for number in range(10):
        books.send(f"background {number}", "background")
    books.wait(AGEING_S - 2)
    books.send("person", "human")
    assert books.turn() == "person"


def test_nothing_starves_under_a_flood(books: Lanes) -> None:
    """There is always something more urgent, and still each gets its turn in time."""
    for number in range(3):
        books.send(f"old {number}", ("background", "batch", "default")[number])
    ran: dict[str, int] = {}
    for second in range(0, 4 * AGEING_S, 10):
        books.send("flood", "human")
        books.send("flood", "human")
        text = books.turn(seconds=10)
        ran.setdefault(text, second)
    assert {ran["old 0"], ran["old 1"], ran["old 2"]} == {AGEING_S, 2 * AGEING_S, 3 * AGEING_S}


def test_one_that_was_handed_back_goes_before_an_aged_one(books: Lanes) -> None:
    books.send("old", "background")
    books.send("running", "human")
    claim = books.claimed(books.mine)
    books.wait(2 * AGEING_S)
    books.mine.release()
    assert books.mine.acquire()
    assert claim.text == "running"
    assert [books.turn(), books.turn()] == ["running", "old"]


def test_ageing_does_not_overtake_within_a_session(books: Lanes) -> None:
    books.send("first", "background", session="s")
    books.send("second", "human", session="s")
    books.send("other", "human")
    books.wait(AGEING_S)
    assert [books.turn() for _ in range(3)] == ["first", "second", "other"]


arrivals = st.lists(
    st.tuples(st.sampled_from(["background", "batch", "default", "human"]), st.integers(0, 40)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(arrivals, st.integers(1, 50))
def test_the_rule(valkey: Valkey, sent: list[tuple[str, int]], turn_s: int) -> None:
    """Whoever runs is the most urgent, or the oldest of all, and that not twice within the time."""
    store = Flaky(open_store(valkey.url).client, {})
    store.client.flushall()
    books = Lanes(store)
    rank = {"human": 9, "default": 5, "batch": 1, "background": 0}
    waiting: list[tuple[int, int, int]] = []  # place, urgency, accepted at
    now, aged = 0, -AGEING_S
    for place, (lane, pause) in enumerate(sent):
        books.send(str(place), lane)
        waiting.append((place, rank[lane], now))
        books.wait(pause)
        now += pause
        if place % 2:
            continue
        usual, oldest = min(waiting, key=lambda one: (-one[1], one[0])), min(waiting)
        old = now - oldest[2] >= AGEING_S and now - aged >= AGEING_S
        expected = oldest if old else usual
        aged = now if expected != usual else aged
        assert books.turn(turn_s) == str(expected[0])
        now += turn_s
        waiting.remove(expected)
    books.close()
