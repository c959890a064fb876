"""A client that takes nothing is cut off; the hub's log is filled by hand here, not by a broker."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Scope

from fleet.api.auth.access import ANYBODY, CALLER, Access
from fleet.api.bus import routes
from fleet.api.bus.buffer import render
from fleet.api.bus.hub import Hub
from fleet.api.bus.routes import BusRoutes
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.config.settings import parse
from fleet.ledger.bus import BusEvent, Window

EPOCH = "0123456789abcdef"


def no_store() -> Any:
    raise AssertionError("the log is filled by hand")


def hub() -> Hub:
    made = Hub(no_store, BoundedThreads("test", 1, 1), 4, Access(no_store))
    made.refill(Window(epoch=EPOCH, first=None, last="0-0", trimmed=False), [], False)
    return made


async def publish(to: Hub, *millis: int) -> None:
    events = [BusEvent(id=f"{number}-0", epoch=EPOCH, type="alert", time="") for number in millis]
    await to.publish(EPOCH, [render(event) for event in events])


async def never(*_: Any) -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_who_takes_nothing_is_cut_off(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    scope: Scope = {
        "type": kind,
        "method": "GET",
        "query_string": b"",
        "headers": [],
        CALLER: ANYBODY,
    }
    scope["client"] = ("192.0.2.1", 5)
    tried: list[str] = []
    begun = asyncio.Event()

    async def send(message: Message) -> None:
        tried.append(message["type"])
        begun.set()
        if len(tried) > 1:  # the answer's head still got through
            await never()

    async def receive() -> dict[str, Any]:
        if tried or kind == "http":
            await never()
        return {"type": "websocket.connect"}

    async def follow() -> None:
        shared = hub()
        routes = BusRoutes(shared, parse({"bus": {"send_timeout_s": 0.01}}, demo=True))
        app = routes.sse if kind == "http" else routes.ws
        client = asyncio.create_task(app(scope, receive, send))
        async with asyncio.timeout(5):
            await begun.wait()
            await publish(shared, 1)
            await client
        assert not shared.followers

    asyncio.run(follow())
    assert "192.0.2.1:5 is cut off" in caplog.text
    assert len(tried) >= 1 + parse({}, demo=True).bus.evict_after_failures


def test_a_quiet_bus_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT_S", 0.01)
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "query_string": b"",
        "headers": [],
        CALLER: ANYBODY,
    }
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if len(sent) == 5:
            shared.close()

    async def follow() -> None:
        async with asyncio.timeout(5):
            await BusRoutes(shared, parse({}, demo=True)).sse(scope, never, send)

    shared = hub()
    asyncio.run(follow())
    assert sent[2:5] == [b": still here\n\n"] * 3
