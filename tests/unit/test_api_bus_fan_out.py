"""One write for each batch and client: the right entries, in order, and never many in a row."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from fleet.api.auth.access import ANYBODY, Access
from fleet.api.bus.buffer import render
from fleet.api.bus.follower import Follower
from fleet.api.bus.frames import text_frame
from fleet.api.bus.hub import SLICE, Hub
from fleet.api.bus.view import WRITE_MAX, BusFilter
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.ledger.bus import BusEvent, Window

EPOCH = "0123456789abcdef"
GEM = BusFilter(agents=frozenset({"gem"}))


def no_store() -> Any:
    raise AssertionError("the log is filled by hand")


def make_hub() -> Hub:
    hub = Hub(no_store, BoundedThreads("test", 1, 1), 8, Access(no_store))
    hub.refill(Window(epoch=EPOCH, first=None, last="0-0", trimmed=False), [], False)
    return hub


def event(number: int, agent: str = "gem", **fields: str) -> BusEvent:
    fields = {"agent": agent, **fields}
    return BusEvent(id=f"{number}-0", epoch=EPOCH, type="alert", time="", fields=fields)


async def publish(hub: Hub, *events: BusEvent) -> None:
    await hub.publish(EPOCH, [render(one) for one in events])


def parse(frames: bytes) -> list[str]:
    """Read frames as a client does."""
    stream = StreamReader()
    stream.feed_data(frames)
    stream.feed_eof()
    found: list[str] = []

    def texts() -> Any:
        while not (yield from stream.at_eof()):
            frame = yield from Frame.parse(stream.read_exact, mask=False)
            assert (frame.opcode, frame.fin) == (Opcode.TEXT, True)
            found.append(bytes(frame.data).decode())

    for _ in texts():
        raise AssertionError("a frame is not whole")
    return found


class Connection:
    """A connection of which the test says when it has room."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()
        self.fills = False  #: with the next write
        self.written: list[bytes] = []

    @property
    def ready(self) -> bool:
        return self.room.is_set()

    def write(self, frames: bytes) -> None:
        self.written.append(frames)
        if self.fills:
            self.room.clear()

    async def drain(self) -> None:
        await self.room.wait()

    @property
    def ids(self) -> list[int]:
        texts = parse(b"".join(self.written))
        return [int(text.partition('"id":"')[2].partition("-")[0]) for text in texts]


async def pump(follower: Follower, connection: Connection) -> None:
    """Send as the WebSocket's route does."""
    follower.writer = connection
    while (batch := await follower.next()) is not None:
        for frames in batch.frames:
            await connection.drain()
            connection.write(frames)


async def crowd(
    hub: Hub, filters: list[BusFilter], during: Callable[[list[Connection]], Awaitable[None]]
) -> list[Connection]:
    """Follow with each filter, until `during` has ended and all is written."""
    connections = [Connection() for _ in filters]
    followers = [await hub.follow(None, bus_filter) for bus_filter in filters]
    pumps = [asyncio.create_task(pump(*each)) for each in zip(followers, connections, strict=True)]
    await asyncio.sleep(0)  # each waits for its first entry
    async with asyncio.timeout(10):
        await during(connections)
        while any(follower.lag for follower in followers):  # noqa: ASYNC110 - turn by turn
            await asyncio.sleep(0)
        hub.close()
        await asyncio.gather(*pumps)
    return connections


@given(st.text(max_size=200) | st.integers(0, 70_000).map("x".__mul__))
def test_any_text_is_one_frame(text: str) -> None:
    assert parse(text_frame(text) + text_frame("end")) == [text, "end"]


def test_clients_with_one_view_get_the_same_bytes() -> None:
    async def during(_: list[Connection]) -> None:
        await publish(hub, event(1), event(2, "archie"), event(3))

    async def follow() -> list[Connection]:
        return await crowd(hub, [BusFilter(), GEM, BusFilter(), GEM], during)

    hub = make_hub()
    whole, gem, whole_too, gem_too = asyncio.run(follow())
    assert (whole.ids, gem.ids) == ([1, 2, 3], [1, 3])
    assert whole.written[0] is whole_too.written[0]
    assert gem.written[0] is gem_too.written[0]


def test_others_are_served_between_two_slices_of_clients() -> None:
    served = 0

    async def during(_: list[Connection]) -> None:
        nonlocal served
        publishing = asyncio.create_task(publish(hub, event(1)))
        while not publishing.done():
            await asyncio.sleep(0)
            served += 1

    hub = make_hub()
    connections = asyncio.run(crowd(hub, [BusFilter()] * (10 * SLICE), during))
    assert all(connection.ids == [1] for connection in connections)
    assert served >= 10


def test_a_client_without_room_gets_no_more_than_a_write_and_delays_nobody() -> None:
    sent = list(range(1, 3 * WRITE_MAX + 1))

    async def during(connections: list[Connection]) -> None:
        slow, quick, full = connections
        slow.room.clear()
        full.fills = True
        await publish(hub, *(event(number) for number in sent))
        assert quick.ids == sent
        assert slow.ids == []
        assert full.ids == sent[:WRITE_MAX]
        full.fills = False
        slow.room.set()
        full.room.set()

    hub = make_hub()
    hub.client_queue = 1000
    connections = asyncio.run(crowd(hub, [BusFilter()] * 3, during))
    for connection in connections:
        assert connection.ids == sent
        assert all(len(parse(frames)) <= WRITE_MAX for frames in connection.written)


@pytest.mark.parametrize("change", ["dismiss", "gone"])
def test_who_has_left_gets_nothing_more(change: str) -> None:
    hub = make_hub()

    async def follow() -> Connection:
        follower = await hub.follow(None, BusFilter(), ANYBODY)
        connection = Connection()
        pumping = asyncio.create_task(pump(follower, connection))
        await asyncio.sleep(0)
        await publish(hub, event(1))
        if change == "dismiss":
            follower.dismiss()
        else:
            follower.gone = True
        await publish(hub, event(2))
        await pumping
        return connection

    assert asyncio.run(follow()).ids == [1]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_entries_come_once_and_in_order_whenever_connections_have_room(seed: int) -> None:
    chance = random.Random(seed)

    async def during(connections: list[Connection]) -> None:
        number = 0
        for _ in range(20):
            for connection in chance.sample(connections, 3):
                (connection.room.clear if connection.ready else connection.room.set)()
            count = chance.randint(1, 3)
            agents = [chance.choice(["gem", "archie"]) for _ in range(count)]
            events = [event(number + place, agent) for place, agent in enumerate(agents, 1)]
            number += count
            gem.extend(number - count + place for place, a in enumerate(agents, 1) if a == "gem")
            await publish(hub, *events)
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
        for connection in connections:
            connection.room.set()

    gem: list[int] = []
    hub = make_hub()
    hub.client_queue = 1000
    connections = asyncio.run(crowd(hub, [BusFilter(), GEM] * 3, during))
    newest = hub.head[0]
    for whole, some in zip(connections[::2], connections[1::2], strict=True):
        assert whole.ids == list(range(1, newest + 1))
        assert some.ids == gem
