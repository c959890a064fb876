"""A model provider for turns that get killed: it answers as requested, and logs each call.

Its log is independent of the fleet. A call is logged once its request has been read, before
anything else happens. It is finished once the whole answer was written to a connected caller. Times
are CLOCK_MONOTONIC.
"""

import asyncio
import json
import time
from dataclasses import replace
from itertools import count
from typing import Any

from fleet.bench._auditor import Call


class Provider:
    """Chat completions on a loopback port. Used in one event loop; `start` sets `port`.

    A request is `{"name": "<dispatch>/<step>/<attempt>", "seconds": 0.1, "fails": false}`.
    """

    def __init__(self) -> None:
        self.port = 0
        self._calls: dict[int, Call] = {}
        self._numbers = count()
        self._server: asyncio.Server | None = None

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call so far, in the order of arrival."""
        return tuple(self._calls.values())

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            request = json.loads(await reader.readexactly(length))
            await self._answer(request, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the caller was killed
        finally:
            writer.close()

    async def _answer(
        self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        dispatch_id, step, attempt = request["name"].split("/")
        number = next(self._numbers)
        self._calls[number] = Call(
            dispatch_id=dispatch_id,
            step=step,
            attempt=int(attempt),
            started_ns=time.monotonic_ns(),
            finished_ns=None,
        )
        await asyncio.sleep(float(request["seconds"]))
        message = {"role": "assistant", "content": f"{step} of {dispatch_id}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if reader.at_eof():
            return
        if request["fails"]:
            await _write(writer, "503 Service Unavailable", {"error": {"message": "Overloaded."}})
            return
        await _write(writer, "200 OK", {"object": "chat.completion", "choices": [choice]})
        self._calls[number] = replace(self._calls[number], finished_ns=time.monotonic_ns())


async def _write(writer: asyncio.StreamWriter, status: str, document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    writer.write(f"HTTP/1.1 {status}\r\n{head}connection: close\r\n\r\n".encode() + body)
    await writer.drain()
