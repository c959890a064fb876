"""Random programs of steps, cut short again and again: what the journal has runs once.

A program is a tree of steps in a row, in threads, and in tasks. After a random write of the journal
its process is "dead": nothing of it reaches the store any more. The next attempt begins threads and
tasks in another order. At the end the answer is that of a run that nothing interrupted.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.ledger import Claim
from fleet.store import Store
from fleet.turn.turn import Turn
from fleet.worker.lease import Lease
from tests.fixtures.ledger import Books, settings_for


class Killed(BaseException):
    """The end of the process that runs the turn."""


@dataclass(frozen=True, slots=True)
class Call:
    """One step; few names and requests, so that many steps are equal."""

    name: str
    request: int


@dataclass(frozen=True, slots=True)
class Group:
    """Parts of a program, one after another or side by side."""

    kind: Literal["row", "threads", "tasks"]
    parts: tuple["Call | Group", ...]


Program = Call | Group
CALLS = st.builds(Call, st.sampled_from("ab"), st.integers(0, 1))
PROGRAMS = st.recursive(
    CALLS,
    lambda parts: st.builds(
        Group,
        st.sampled_from(["row", "threads", "tasks"]),
        st.lists(parts, min_size=1, max_size=3).map(tuple),
    ),
    max_leaves=8,
)


@dataclass
class World:
    """Everything outside the turn: it counts the calls, each of which costs money."""

    calls: list[int] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def pay(self, call: Call, given: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.calls.append(number)
        return {"value": f"{call.name}{call.request}({given})", "call": number}


@dataclass
class Mortal:
    """A ledger for one process, which dies after some writes."""

    books: Books
    left: int

    def steps(self, dispatch_id: str) -> dict[str, str]:
        return self.books.ledger.steps(dispatch_id)

    def step(self, *args: Any) -> str:
        self.left -= 1
        if self.left < 0:
            raise Killed
        found = self.books.ledger.step(*args)
        if self.left == 0:
            raise Killed
        return found


class Run:
    """One attempt at a program."""

    def __init__(self, turn: Turn, world: World, order: Random) -> None:
        self._turn, self._world, self._order = turn, world, order

    def all(self, program: Program, given: Any = "") -> Any:
        if isinstance(program, Call):
            step, request = self._turn.step, [program.request, given]
            return step(program.name, request, lambda: self._world.pay(program, given))["value"]
        if program.kind == "row":
            for part in program.parts:
                given = self.all(part, given)
            return given
        places = self._shuffled(program.parts)
        if program.kind == "tasks":
            found = asyncio.run(self._gathered(program.parts, places, given))
        else:
            with ThreadPoolExecutor(len(places)) as pool:
                futures = {
                    place: pool.submit(self.all, program.parts[place], given) for place in places
                }
                found = [futures[place].result() for place in sorted(futures)]
        return ",".join(found)

    async def _gathered(
        self, parts: Sequence[Program], places: Sequence[int], given: Any
    ) -> list[Any]:
        found = await asyncio.gather(*(self._awaited(parts[place], given) for place in places))
        return [value for _, value in sorted(zip(places, found, strict=True))]

    async def _awaited(self, program: Program, given: Any) -> Any:
        if not isinstance(program, Call):
            return await asyncio.to_thread(self.all, program, given)

        async def call() -> dict[str, Any]:
            await asyncio.sleep(0)
            return self._world.pay(program, given)

        request = [program.request, given]
        return (await self._turn.step(f"async {program.name}", request, call))["value"]

    def _shuffled(self, parts: Sequence[Program]) -> list[int]:
        return self._order.sample(range(len(parts)), len(parts))


def turn_of(books: Books, claim: Claim, writes: int = 10_000) -> Turn:
    ledger: Any = Mortal(books, writes)
    agent = books.settings.agents[claim.agent]
    return Turn(claim=claim, agent=agent, deadline=time.monotonic() + 60, ledger=ledger)


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a"))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    program=PROGRAMS,
    deaths=st.lists(st.integers(1, 6), max_size=2),
    seed=st.integers(0, 2**32),
)
def test_what_was_journalled_ran_once_and_the_answer_is_the_same(
    books: Books, program: Program, deaths: list[int], seed: int
) -> None:
    order, lease = Random(seed), books.held()
    try:
        books.accept()
        claim = books.claimed(lease)
        expected = Run(turn_of(books, claim), World(), order).all(program)
        steps = Counter(map(identity, books.ledger.steps(claim.dispatch_id).values()))
        books.complete(claim)
        check_interrupted(books, lease, program, deaths, order, expected, steps)
    finally:
        for claim in iter(lambda: books.claim(lease), None):
            books.complete(claim)
        lease.release()


def check_interrupted(
    books: Books,
    lease: Lease,
    program: Program,
    deaths: list[int],
    order: Random,
    expected: Any,
    steps: Counter[str],
) -> None:
    (dispatch_id,) = books.accept()
    world, kept = World(), set[int]()
    for writes in deaths:
        with suppress(Killed):
            Run(turn_of(books, books.claimed(lease), writes), world, order).all(program)
        now = called(books, dispatch_id)
        assert kept <= now
        kept = now
    claim = books.claimed(lease)
    answer = Run(turn_of(books, claim), world, order).all(program)
    assert answer == expected
    # As many entries as steps: none that was in the journal was called again.
    assert Counter(map(identity, books.ledger.steps(dispatch_id).values())) == steps
    assert kept <= called(books, dispatch_id) <= set(world.calls)
    books.complete(claim, str(answer))


def called(books: Books, dispatch_id: str) -> set[int]:
    """The calls whose results are in the journal."""
    return {json.loads(text)["result"]["call"] for text in books.ledger.steps(dispatch_id).values()}


def identity(entry: str) -> str:
    return str(json.loads(entry)["hash"])
