"""A process of minimal WebSocket clients, to measure servers.

Commands come on standard input, one JSON object a line; each is answered with one.
"""

import asyncio
import json
import os
import sys
import time
from array import array
from contextlib import suppress
from typing import Any, cast

from uvicorn.loops.auto import auto_loop_factory

_MARK = b'"reason":"'
#: Connections opened at once; the servers' backlog is not measured here.
_AT_ONCE = 50
_PONG = 0x8A
_PING, _CLOSE = 0x9, 0x8


class BusClient(asyncio.Protocol):
    """A client that counts deliveries: a text holds `number.sent_ns`, and numbers grow by one."""

    def __init__(self, crowd: "Crowd", request: bytes) -> None:
        self._crowd = crowd
        self._request = request
        self._data = bytearray()
        self._open = False
        self._transport: asyncio.Transport | None = None
        self.last = crowd.behind  #: the newest number received
        self.opened = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Request the upgrade."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Handle frames, in any fragmentation."""
        now = time.monotonic_ns()
        self._data += data
        if not self._open:
            head, mark, rest = bytes(self._data).partition(b"\r\n\r\n")
            if not mark:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionError(head.decode(errors="replace")))
                return
            self._open, self._data = True, bytearray(rest)
            self.opened.set_result(None)
        self._frames(now)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the loss; later deliveries are missed."""
        self._crowd.lost += 1

    def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.abort()

    def _frames(self, now: int) -> None:
        data, at, end = self._data, 0, len(self._data)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            if end - start < size:
                break
            kind = data[at] & 0xF
            if kind == 1:
                self._text(data, start, start + size, now)
            elif kind == _PING and self._transport is not None:
                # Masked with zeros, which change nothing.
                answer = bytes([_PONG, 0x80 | size, 0, 0, 0, 0]) + data[start : start + size]
                self._transport.write(answer)
            at = start + size
        del data[:at]

    def _text(self, data: bytearray, start: int, end: int, now: int) -> None:
        begins = data.find(_MARK, start, end) + len(_MARK)
        words = data[begins : data.find(b'"', begins, end)].split(b".")
        if len(words) != 2:  # a notice, or another's event
            self._crowd.other += 1
            return
        self._crowd.record(self, int(words[0]), now - int(words[1]), now)


class Crowd:
    """All clients of this process, and their figures since `begin`."""

    def __init__(self) -> None:
        self.clients: list[BusClient] = []
        self._arrived = asyncio.Event()
        self._awaited = 0
        self.begin(0)

    def begin(self, last: int) -> None:
        """Reset the figures; the next delivery is number `last` + 1."""
        self.waits_ns = array("q")
        self.received = self.duplicated = self.skipped = self.other = self.lost = 0
        self.newest_ns = 0
        self.behind = last
        for client in self.clients:
            client.last = last

    def record(self, client: BusClient, number: int, wait_ns: int, now: int) -> None:
        """Count a delivery."""
        if number <= client.last:
            self.duplicated += 1
            return
        self.skipped += number - client.last - 1
        client.last = number
        self.received += 1
        self.newest_ns = now
        self.waits_ns.append(wait_ns)
        self._awaited -= 1
        if not self._awaited:
            self._arrived.set()

    async def open(self, host: str, port: int, count: int, query: str) -> None:
        """Open `count` more clients."""
        loop = asyncio.get_running_loop()
        key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        request = (
            f"GET /ws{query} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\n{key}"
        ).encode()
        for start in range(0, count, _AT_ONCE):
            made = [
                (await loop.create_connection(lambda: BusClient(self, request), host, port))[1]
                for _ in range(min(_AT_ONCE, count - start))
            ]
            self.clients += made
            await asyncio.gather(*(client.opened for client in made))

    async def wait(self, deliveries: int, seconds: float) -> None:
        """Wait for so many deliveries, at most `seconds`."""
        self._awaited = deliveries - self.received
        self._arrived.clear()
        if self._awaited > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()

    def figures(self) -> dict[str, Any]:
        """The figures since `begin`."""
        waits = sorted(self.waits_ns)

        def share(part: float) -> float:
            return waits[min(len(waits) - 1, int(part * len(waits)))] / 1e6 if waits else 0.0

        return {
            "received": self.received,
            "duplicated": self.duplicated,
            "skipped": self.skipped,
            "other": self.other,
            "lost": self.lost,
            "newest_ns": self.newest_ns,
            "p50_ms": share(0.5),
            "p99_ms": share(0.99),
        }

    def close(self) -> None:
        """Disconnect all clients."""
        for client in self.clients:
            client.close()
        self.clients.clear()


async def main() -> None:
    """Serve standard input until it ends."""
    loop = asyncio.get_running_loop()
    crowd = Crowd()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        answer: dict[str, Any] = {}
        match request.pop("do"):
            case "open":
                await crowd.open(**request)
            case "begin":
                crowd.begin(**request)
            case "wait":
                await crowd.wait(**request)
                answer = crowd.figures()
            case "close":
                crowd.close()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    # The loop of the servers: clients of a slower one would measure themselves.
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(main())
    os._exit(0)
