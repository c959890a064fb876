"""Events that come while others are being accepted go together; nobody waits for company."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest

from fleet.api.request.bounded_threads import BoundedThreads, ThreadsBusy
from fleet.api.routes.events import GroupedIntake
from fleet.errors import BrokerUnavailable
from fleet.intake.intake import Intake
from fleet.ledger import Accepted


class Slow:
    """An intake that answers when it is let."""

    def __init__(self) -> None:
        self.groups: list[list[object]] = []
        self.asked = threading.Event()
        self.let = threading.Event()
        self.fails = False

    def accept_batch(self, raws: Sequence[object], may: Sequence[Any]) -> list[Accepted]:
        assert len(may) == len(raws)
        self.groups.append(list(raws))
        self.asked.set()
        assert self.let.wait(5)
        if self.fails:
            raise BrokerUnavailable("away")
        return [Accepted(event_id=str(raw), dispatches=(), duplicate=False) for raw in raws]


@pytest.fixture
def intake() -> Slow:
    return Slow()


@pytest.fixture
def grouped(intake: Slow) -> GroupedIntake:
    return GroupedIntake(lambda: cast("Intake", intake))


def test_one_after_the_other_is_never_left_waiting(intake: Slow, grouped: GroupedIntake) -> None:
    intake.let.set()

    async def send() -> list[str]:
        async with asyncio.timeout(5):
            return [(await grouped.accept(number)).event_id for number in range(50)]

    assert asyncio.run(send()) == [str(number) for number in range(50)]


def test_those_who_wait_go_together_and_each_gets_its_own(
    intake: Slow, grouped: GroupedIntake
) -> None:
    async def send() -> list[Any]:
        first = asyncio.create_task(grouped.accept("first"))
        assert await asyncio.to_thread(intake.asked.wait, 5)
        rest = [asyncio.create_task(grouped.accept(number)) for number in range(10)]
        await asyncio.sleep(0)
        rest[3].cancel()  # its client hung up
        intake.let.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    answers = asyncio.run(send())
    assert intake.groups == [["first"], list(range(10))]
    assert isinstance(answers.pop(4), asyncio.CancelledError)
    assert [answer.event_id for answer in answers] == [
        "first",
        *(str(n) for n in range(10) if n != 3),
    ]


def test_all_of_a_group_are_told_of_a_broker_that_is_away(
    intake: Slow, grouped: GroupedIntake
) -> None:
    intake.fails = True
    intake.let.set()

    async def send() -> list[Any]:
        return await asyncio.gather(*map(grouped.accept, range(5)), return_exceptions=True)

    assert {type(answer) for answer in asyncio.run(send())} == {BrokerUnavailable}
    intake.fails = False
    assert asyncio.run(grouped.accept("later")).event_id == "later"


def test_a_lane_refuses_what_would_wait_too_long() -> None:
    asked, let = threading.Event(), threading.Event()
    lane = BoundedThreads("test", threads=1, backlog=1)

    def work() -> bool:
        asked.set()
        return let.wait(5)

    async def use() -> None:
        running = asyncio.create_task(lane.run(work))
        assert await asyncio.to_thread(asked.wait, 5)
        waiting = asyncio.create_task(lane.run(work))
        await asyncio.sleep(0)
        with pytest.raises(ThreadsBusy):
            await lane.run(work)
        let.set()
        assert await running
        assert await waiting

    asyncio.run(use())
